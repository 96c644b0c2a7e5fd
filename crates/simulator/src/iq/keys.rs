//! `encrypt`: a device publishes its keys, and asks for those of others.

use anyhow::{Context as _, Result};
use wacore::prekeys::compute_key_bundle_digest;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeRef};

use super::Reply;
use crate::account::Account;
use crate::delivery;
use crate::device::{OneTimePreKey, SignedPreKey, State};
use crate::journal::Batch;
use crate::session::Member;
use crate::stanza::{SERVER, bytes_in, jid, leaf, message_id, number};
use crate::world::unix_time;

/// With so many prekeys left a device is asked for more.
const FEW_PREKEYS: usize = 10;

pub(super) fn answer(member: &Member, node: &NodeRef<'_>) -> Result<Reply> {
    if let Some(key) = node.get_optional_child("key") {
        return hand_out(member, key);
    }
    if node.get_optional_child("count").is_some() {
        let count = member.device.lock().prekeys().len();
        let count = NodeBuilder::new("count").attr("value", count).build();
        return Ok(Reply::with(vec![count]));
    }
    if node.get_optional_child("digest").is_some() {
        return Ok(digest(&member.device.lock()));
    }
    if let Some(rotate) = node.get_optional_child("rotate") {
        let signed = signed_prekey(rotate)?;
        let mut batch = Batch::default();
        let mut state = member.device.lock();
        state.profile.signed_prekey = signed;
        member.device.keep(&state, &mut batch);
        return Ok(Reply::done().after(member.world.journal.commit(batch)));
    }
    upload(member, node)
}

fn signed_prekey(node: &NodeRef<'_>) -> Result<SignedPreKey> {
    let key = node.get_optional_child("skey").context("no <skey>")?;
    let public = bytes_in(key, "value").context("no signed prekey")?;
    Ok(SignedPreKey {
        id: bytes_in(key, "id").and_then(number).context("no id")?,
        public: public.try_into().context("a signed prekey has 32 bytes")?,
        signature: bytes_in(key, "signature").context("no signature")?.to_vec(),
    })
}

fn upload(member: &Member, node: &NodeRef<'_>) -> Result<Reply> {
    let signed = signed_prekey(node)?;
    let list = node.get_optional_child("list").context("no <list>")?;
    let mut keys = Vec::new();
    for key in list.get_children_by_tag("key") {
        let public = bytes_in(key, "value").context("a key without value")?;
        keys.push(OneTimePreKey {
            id: bytes_in(key, "id").and_then(number).context("no id")?,
            public: public.try_into().context("a prekey has 32 bytes")?,
        });
    }
    let identity = bytes_in(node, "identity").context("no identity")?;
    let identity = identity.try_into().context("an identity has 32 bytes")?;
    let registration = Member::registration_in(node).context("no registration id")?;
    let mut batch = Batch::default();
    let mut state = member.device.lock();
    state.profile.identity = identity;
    state.profile.registration_id = registration;
    state.profile.signed_prekey = signed;
    member.device.add_prekeys(&mut state, keys, &mut batch);
    member.device.keep(&state, &mut batch);
    Ok(Reply::done().after(member.world.journal.commit(batch)))
}

/// After its first prekeys a device can be written to, and the phone does so.
pub(super) fn share_app_state_key_when_due(
    member: &Member,
    topic: &str,
    node: &NodeRef<'_>,
) -> Result<()> {
    if topic != "encrypt" || node.get_optional_child("list").is_none() {
        return Ok(());
    }
    if member.device.lock().profile.key_shared {
        return Ok(());
    }
    delivery::share_app_state_key(&member.world, &member.account, &member.device)?;
    // Real accounts keep their name in the app state, which is empty here: without a name, some
    // clients look for it there at every login, and wait.
    let introduction = NodeBuilder::new("notification")
        .attr("from", member.account.jid())
        .attr("id", message_id())
        .attr("t", unix_time())
        .attr("type", "account_sync")
        .attr("pushname", member.account.standing().name)
        .build();
    member.reply(&introduction, 0);
    Ok(())
}

fn digest(state: &State) -> Reply {
    let profile = &state.profile;
    let signed = &profile.signed_prekey;
    let publics: Vec<&[u8]> = state.prekeys().map(|key| &key.public[..]).collect();
    let hash = compute_key_bundle_digest(
        &profile.identity,
        &signed.public,
        &signed.signature,
        &publics,
    );
    let ids = state.prekeys().map(|key| leaf("id", three_bytes(key.id)));
    let children = [
        leaf("registration", profile.registration_id.to_be_bytes()),
        leaf("type", [5]),
        leaf("identity", profile.identity),
        skey(signed.id, &signed.public, &signed.signature),
        NodeBuilder::new("list").children(ids).build(),
        leaf("hash", hash),
    ];
    Reply::with(vec![NodeBuilder::new("digest").children(children).build()])
}

fn hand_out(member: &Member, key: &NodeRef<'_>) -> Result<Reply> {
    let mut batch = Batch::default();
    let mut users = Vec::new();
    for user in key.get_children_by_tag("user") {
        let Some(jid) = jid(user, "jid") else {
            continue;
        };
        let node = NodeBuilder::new("user").attr("jid", jid.clone());
        users.push(match bundle(member, &jid, &mut batch)? {
            Some(children) => node.attr("t", unix_time()).children(children).build(),
            None => {
                let error = NodeBuilder::new("error")
                    .attr("code", 406)
                    .attr("text", "not-acceptable")
                    .build();
                node.children([error]).build()
            }
        });
    }
    let position = member.world.journal.commit(batch);
    let list = NodeBuilder::new("list").children(users).build();
    Ok(Reply::with(vec![list]).after(position))
}

/// A phone's keys or a linked device's; `None` for a device that doesn't exist.
fn bundle(member: &Member, jid: &Jid, batch: &mut Batch) -> Result<Option<Vec<Node>>> {
    let Ok(account) = member.world.resolve(jid) else {
        return Ok(None);
    };
    if jid.device == 0 {
        let registration = account.keys.registration_id.to_be_bytes();
        let mut children = vec![leaf("registration", registration)];
        children.extend(phone_keys(&account, batch)?);
        return Ok(Some(children));
    }
    let Some(device) = account.device(jid.device) else {
        return Ok(None);
    };
    let mut state = device.lock();
    let one_time = device.take_prekey(&mut state, batch);
    warn_of_few_prekeys(&state);
    let profile = &state.profile;
    let signed = &profile.signed_prekey;
    let mut children = vec![
        leaf("registration", profile.registration_id.to_be_bytes()),
        leaf("type", [5]),
        leaf("identity", profile.identity),
        skey(signed.id, &signed.public, &signed.signature),
        leaf("device-identity", profile.device_identity.as_slice()),
    ];
    children.extend(one_time.map(|key| prekey(key.id, &key.public)));
    Ok(Some(children))
}

/// What starts a session with a phone; the one-time prekey among it is for one only.
pub(crate) fn phone_keys(account: &Account, batch: &mut Batch) -> Result<Vec<Node>> {
    let (id, key) = account.handset().issue_prekey(batch);
    let (signed_id, signed, signature) = account.keys.signed_prekey()?;
    let identity = account.keys.identity()?.public_key;
    Ok(vec![
        leaf("type", [5]),
        leaf("identity", identity.public_key_bytes()),
        prekey(id, key.public_key_bytes()),
        skey(signed_id, signed.public_key_bytes(), signature),
    ])
}

/// Tells a connected device when its prekeys run out.
pub(crate) fn warn_of_few_prekeys(state: &State) {
    if let Some(outlet) = &state.outlet
        && state.prekeys().len() == FEW_PREKEYS
    {
        let count = NodeBuilder::new("count").attr("value", FEW_PREKEYS).build();
        let notification = NodeBuilder::new("notification")
            .attr("from", SERVER)
            .attr("id", message_id())
            .attr("t", unix_time())
            .attr("type", "encrypt")
            .children([count])
            .build();
        outlet.send(&notification, 0);
    }
}

fn skey(id: u32, public: &[u8], signature: &[u8]) -> Node {
    NodeBuilder::new("skey")
        .children([
            leaf("id", three_bytes(id)),
            leaf("value", public),
            leaf("signature", signature),
        ])
        .build()
}

fn prekey(id: u32, public: &[u8]) -> Node {
    NodeBuilder::new("key")
        .children([leaf("id", three_bytes(id)), leaf("value", public)])
        .build()
}

fn three_bytes(id: u32) -> Vec<u8> {
    id.to_be_bytes()[1..].to_vec()
}
