//! Which devices an account has: as others are told, and as its own devices are told when that
//! changes.

use anyhow::Result;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};
use wacore_binary::Node;
use wacore_binary::builder::NodeBuilder;
use waproto::buffa::Message as _;
use waproto::whatsapp::{ADVKeyIndexList, ADVSignedKeyIndexList};

use crate::account::Account;
use crate::stanza::message_id;
use crate::world::unix_time;

const KEY_INDEX_SIGNATURE: [u8; 2] = [6, 2];

/// The linked devices' numbers, without the phone's 0.
pub(crate) fn linked(account: &Account) -> Vec<u16> {
    account.devices().iter().map(|device| device.id).collect()
}

pub(crate) fn hash(account: &Account, linked: &[u16]) -> String {
    let hash = Sha256::digest(format!("{} {linked:?}", account.phone));
    format!("2:{}", BASE64_STANDARD.encode(&hash[..6]))
}

/// `<key-index-list>`: the valid devices, signed by the phone.
pub(crate) fn key_index_list(account: &Account, linked: &[u16]) -> Result<Node> {
    let now = unix_time();
    let linked = linked.iter().map(|id| u32::from(*id));
    let details = ADVKeyIndexList {
        raw_id: Some(account.keys.registration_id),
        timestamp: Some(now.unsigned_abs()),
        current_index: Some(linked.clone().next_back().unwrap_or(0)),
        valid_indexes: std::iter::once(0).chain(linked).collect(),
        ..Default::default()
    }
    .encode_to_vec();
    let key = account.keys.identity()?;
    let mut subject = KEY_INDEX_SIGNATURE.to_vec();
    subject.extend_from_slice(&details);
    let signature = key.calculate_signature(&subject, &mut rand::rng())?;
    let signed = ADVSignedKeyIndexList {
        details: Some(details),
        account_signature: Some(signature.to_vec()),
        account_signature_key: Some(key.public_key.public_key_bytes().to_vec()),
    };
    Ok(NodeBuilder::new("key-index-list")
        .attr("ts", now)
        .bytes(signed.encode_to_vec())
        .build())
}

/// Tells the account's connected devices who belongs to it now; the others ask at their login.
pub(crate) fn announce(account: &Account) -> Result<()> {
    let linked = linked(account);
    let device = |id: u16| {
        NodeBuilder::new("device")
            .attr("jid", account.jid().with_device(id))
            .attr("key-index", id)
            .build()
    };
    let mut children = vec![
        NodeBuilder::new("device")
            .attr("jid", account.jid())
            .build(),
    ];
    children.extend(linked.iter().map(|id| device(*id)));
    children.push(key_index_list(account, &linked)?);
    let devices = NodeBuilder::new("devices")
        .attr("dhash", hash(account, &linked))
        .children(children)
        .build();
    let notification = NodeBuilder::new("notification")
        .attr("from", account.jid())
        .attr("id", message_id())
        .attr("t", unix_time())
        .attr("type", "account_sync")
        .children([devices])
        .build();
    for device in account.devices() {
        if let Some(outlet) = &device.lock().outlet {
            outlet.send(&notification, 0);
        }
    }
    Ok(())
}
