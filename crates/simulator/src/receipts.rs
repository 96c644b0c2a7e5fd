//! A device says that it has a message, can't read one, or doesn't want it any more.

use anyhow::{Context as _, Result};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeRef};
use wacore_libsignal::protocol::{IdentityKey, PreKeyBundle};

use crate::account::Account;
use crate::delivery;
use crate::device::public_key;
use crate::iq::phone_keys;
use crate::journal::{Batch, Position};
use crate::media;
use crate::offline::{Ack, Origin};
use crate::session::Member;
use crate::stanza::{bytes_in, jid, leaf, number, required, text};
use crate::world::{World, unix_millis};

/// Retries after which a sender gives up, as phones do.
const MAX_RETRIES: u32 = 5;

/// `<receipt>`: of one message, or of a list.
pub(crate) fn receipt(member: &Member, node: &NodeRef<'_>) -> Result<()> {
    let kind = text(node, "type");
    if kind.as_deref() == Some("retry") {
        return retry(member, node);
    }
    if member.faults().drop_acks {
        member.world.stats.receipts_dropped.add();
        return Ok(());
    }
    member.world.stats.receipts.add();
    let mut ids = vec![required(node, "id")?];
    if let Some(list) = node.get_optional_child("list") {
        let items = list.get_children_by_tag("item");
        ids.extend(items.filter_map(|item| text(item, "id")));
    }
    if kind.as_deref() == Some("server-error") && node.get_optional_child("rmr").is_some() {
        media::asked(member, node, &ids[0])?;
    }
    // An error about media says nothing about the message itself.
    let position = match kind.as_deref() {
        Some("server-error" | "enc_rekey_retry") => 0,
        _ => acknowledge(member, node, &ids),
    };
    answer(member, node, position)
}

fn acknowledge(member: &Member, node: &NodeRef<'_>, ids: &[String]) -> Position {
    let (world, device) = (&member.world, &member.device);
    let mut batch = Batch::default();
    let mut entries = Vec::new();
    let mut from_devices = Vec::new();
    let mut state = device.lock();
    for id in ids {
        let Some(waiting) = state.queue.remove(&device.name(), id, &mut batch) else {
            continue;
        };
        entries.extend(waiting.ledger);
        if let Origin::Device { phone, .. } = waiting.origin {
            from_devices.push((phone, id));
        }
    }
    let position = world
        .ledger
        .acked(&entries, device.id, unix_millis(), batch, &world.journal);
    // Never two devices locked outside of one account's.
    drop(state);
    for (phone, id) in from_devices {
        tell_sender(member, &phone, node, id);
    }
    position
}

/// A client's own device sent that message: it hears that it arrived.
fn tell_sender(member: &Member, phone: &str, node: &NodeRef<'_>, id: &str) {
    let Some(sender) = member.world.find(phone) else {
        return;
    };
    for device in sender.devices() {
        let mut receipt = NodeBuilder::new("receipt")
            .attr("from", member.account.jid())
            .attr("id", id)
            .attr("t", unix_millis() / 1000);
        if let Some(kind) = text(node, "type") {
            receipt = receipt.attr("type", kind);
        }
        device.post(&member.world, &receipt.build());
    }
}

fn answer(member: &Member, node: &NodeRef<'_>, position: Position) -> Result<()> {
    let mut ack = NodeBuilder::new("ack")
        .attr("class", "receipt")
        .attr("id", required(node, "id")?);
    if let Some(to) = jid(node, "to") {
        ack = ack.attr("from", to);
    }
    for name in ["type", "participant"] {
        if let Some(value) = node.get_attr(name) {
            ack = ack.attr(name, value.to_node_value());
        }
    }
    member.acknowledge(ack.build(), position);
    Ok(())
}

/// `<ack>`: of a message, that the device has given it up; of anything else, that it has it.
pub(crate) fn bare_ack(member: &Member, node: &NodeRef<'_>) -> Result<()> {
    if member.faults().drop_acks {
        return Ok(());
    }
    let ack = Ack::read(node).context("an <ack> without class")?;
    let id = required(node, "id")?;
    let mut batch = Batch::default();
    let mut state = member.device.lock();
    let name = member.device.name();
    match text(node, "class").as_deref() {
        Some("message") => state.queue.park(&name, &id, &mut batch),
        _ => state.queue.acknowledged(&name, &ack, &mut batch),
    }
    member.world.journal.commit(batch);
    Ok(())
}

/// The device couldn't read a message: whoever sent it encrypts it anew.
fn retry(member: &Member, node: &NodeRef<'_>) -> Result<()> {
    let world = &member.world;
    world.stats.retry_receipts.add();
    let id = required(node, "id")?;
    let retry = node.get_optional_child("retry").context("no <retry>")?;
    let count = text(retry, "count").and_then(|count| count.parse().ok());
    let count: u32 = count.unwrap_or(1);
    let origin = {
        let state = member.device.lock();
        state.queue.get(&id).map(|waiting| waiting.origin.clone())
    };
    match origin {
        Some(Origin::Phone { .. }) if member.faults().forgetful => {}
        Some(Origin::Phone { .. }) if count <= MAX_RETRIES => {
            let keys = bundle_in(member, node)?;
            delivery::resend(world, &member.account, &member.device, &id, keys, count)?;
        }
        Some(Origin::Device { phone, device }) => forward_retry(member, &phone, device, node)?,
        Some(Origin::Phone { .. } | Origin::Server) | None => {}
    }
    answer(member, node, world.journal.tail())
}

/// A phone asks a device for a message that it couldn't read.
pub(crate) struct Request<'a> {
    pub(crate) id: &'a str,
    /// How often it has asked, this time included.
    pub(crate) count: u32,
    /// Give new keys along, for a new session.
    pub(crate) keys: bool,
}

impl Request<'_> {
    /// The receipt that asks, made of one that says who and what.
    pub(crate) fn stanza(
        &self,
        world: &World,
        reader: &Account,
        receipt: NodeBuilder,
    ) -> Result<Node> {
        let retry = NodeBuilder::new("retry")
            .attr("v", 1)
            .attr("id", self.id)
            .attr("t", unix_millis() / 1000)
            .attr("count", self.count)
            .build();
        let registration = reader.keys.registration_id.to_be_bytes();
        let mut children = vec![retry, leaf("registration", registration.to_vec())];
        if self.keys {
            let mut batch = Batch::default();
            let keys = phone_keys(reader, &mut batch)?;
            world.journal.commit(batch);
            children.push(NodeBuilder::new("keys").children(keys).build());
        }
        Ok(receipt.attr("type", "retry").children(children).build())
    }
}

/// The keys that a retry receipt may bring.
fn bundle_in(member: &Member, node: &NodeRef<'_>) -> Result<Option<PreKeyBundle>> {
    let Some(keys) = node.get_optional_child("keys") else {
        return Ok(None);
    };
    let signed = keys
        .get_optional_child("skey")
        .context("no signed prekey")?;
    let signed_id = bytes_in(signed, "id").and_then(number).context("no id")?;
    let prekey = match keys.get_optional_child("key") {
        Some(key) => {
            let id = bytes_in(key, "id").and_then(number).context("no id")?;
            let value = bytes_in(key, "value").context("no prekey")?;
            Some((id.into(), public_key(value)?))
        }
        None => None,
    };
    let registration = Member::registration_in(node).context("no registration id")?;
    let bundle = PreKeyBundle::new(
        registration,
        u32::from(member.device.id).into(),
        prekey,
        signed_id.into(),
        public_key(bytes_in(signed, "value").context("no signed prekey")?)?,
        bytes_in(signed, "signature")
            .context("no signature")?
            .to_vec(),
        IdentityKey::new(public_key(bytes_in(keys, "identity").context("no key")?)?),
    )?;
    Ok(Some(bundle))
}

fn forward_retry(member: &Member, phone: &str, device: u16, node: &NodeRef<'_>) -> Result<()> {
    let sender = member.world.find(phone);
    let Some(device) = sender.and_then(|sender| sender.device(device)) else {
        return Ok(());
    };
    let mut receipt = node.to_owned();
    let from = member.account.jid().with_device(member.device.id);
    let group = jid(node, "to").filter(|to| to.server == wacore_binary::Server::Group);
    receipt
        .attrs
        .0
        .retain(|(name, _)| name != "to" && name != "participant");
    match group {
        Some(group) => {
            receipt.attrs.push("from", group);
            receipt.attrs.push("participant", from);
        }
        None => receipt.attrs.push("from", from),
    }
    if let Some(outlet) = &device.lock().outlet {
        outlet.send(&receipt, 0);
    }
    Ok(())
}
