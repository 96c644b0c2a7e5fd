//! A simulated phone writes: to every linked device of an account, each over its own ratchet.

use anyhow::{Result, bail};
use wacore_binary::Node;
use wacore_binary::builder::NodeBuilder;
use wacore_libsignal::protocol::{PreKeyBundle, ProtocolAddress};
use waproto::buffa::{Message as _, MessageField};
use waproto::whatsapp::Message;
use waproto::whatsapp::message::{
    AppStateSyncKey, AppStateSyncKeyData, AppStateSyncKeyFingerprint, AppStateSyncKeyId,
    AppStateSyncKeyShare, ProtocolMessage, protocol_message,
};

mod content;
mod letter;

use content::{damaged, distribution, enc, pad, with_enc};
pub(crate) use letter::{Addressing, Letter};

use crate::account::Account;
use crate::device::Device;
use crate::handset::{Handset, Sealed};
use crate::journal::Batch;
use crate::offline::{Origin, Waiting};
use crate::stanza::{encode, message_id};
use crate::world::{World, unix_time};

/// Encrypts the letter for all linked devices and queues it for each.
pub(crate) fn send(world: &World, letter: &Letter) -> Result<()> {
    let sender = letter.sender();
    let devices = letter.account.devices();
    if devices.is_empty() {
        bail!("{} has no linked device", letter.account.phone);
    }
    let mut batch = Batch::default();
    let mut handset = sender.handset();
    let mut sealed = Vec::with_capacity(devices.len());
    // In a group all get the same skmsg; it is made once, after the key was given to everyone.
    let mut given = Vec::with_capacity(devices.len());
    for device in &devices {
        given.push(match &letter.group {
            Some(group) => give_sender_key(world, &mut handset, group, device, &mut batch)?,
            None => None,
        });
    }
    let group_message = match &letter.group {
        Some(group) => Some(handset.group_encrypt(group, &pad(&letter.content), &mut batch)?),
        None => None,
    };
    let by_lid = letter.group.as_deref().is_some_and(|group| {
        let group = world.groups.find(group);
        group.is_some_and(|group| group.by_lid)
    });
    for (device, key) in devices.iter().zip(given) {
        let mut encs: Vec<Node> = key.iter().map(|key| enc(key, None)).collect();
        match &group_message {
            Some(message) => encs.push(enc(&damaged(message, letter.corrupt)?, None)),
            None => {
                let message = seal(world, &mut handset, device, &letter.direct(), &mut batch)?;
                encs.push(enc(&damaged(&message, letter.corrupt)?, None));
            }
        }
        sealed.push(encode(&letter.envelope(encs, by_lid)).to_vec());
    }
    let entry = world.ledger.enter(letter.record(&devices), &mut batch);
    // All at once, in the order of their numbers: either every device has it or none.
    let mut states: Vec<_> = devices.iter().map(|device| device.lock()).collect();
    for ((device, state), stanza) in devices.iter().zip(&mut states).zip(sealed) {
        let waiting = Waiting {
            id: letter.id.clone(),
            stanza,
            ledger: Some(entry),
            origin: letter.origin(),
            parked: false,
            resent: false,
        };
        device.enqueue(state, waiting, &mut batch);
    }
    let position = world.journal.commit(batch);
    world.stats.messages_sent.add();
    for (device, state) in devices.iter().zip(&states) {
        device.put_on_wire(state, &letter.id, position);
    }
    Ok(())
}

/// Encrypts for one device, starting a session when there is none.
fn seal(
    world: &World,
    handset: &mut Handset,
    device: &Device,
    content: &[u8],
    batch: &mut Batch,
) -> Result<Sealed> {
    let address = address(device);
    if !handset.has_session(&address) {
        handset.start_session(&address, &take_bundle(world, device)?)?;
    }
    handset.encrypt(&address, &pad(content), batch)
}

/// Encrypts something that isn't a message for one device.
pub(crate) fn seal_for(
    world: &World,
    sender: &Account,
    device: &Device,
    content: &[u8],
) -> Result<Sealed> {
    let mut batch = Batch::default();
    let sealed = seal(world, &mut sender.handset(), device, content, &mut batch)?;
    world.journal.commit(batch);
    Ok(sealed)
}

/// The sender key, for a device that doesn't have it yet.
fn give_sender_key(
    world: &World,
    handset: &mut Handset,
    group: &str,
    device: &Device,
    batch: &mut Batch,
) -> Result<Option<Sealed>> {
    // Made on first use, also when every device had it from an earlier life.
    let key = handset.distribution(group, batch)?;
    let address = address(device);
    if handset.has_distributed(group, &address) {
        return Ok(None);
    }
    let sealed = seal(
        world,
        handset,
        device,
        &distribution(group, key, None),
        batch,
    )?;
    handset.distributed(group, &address, batch);
    Ok(Some(sealed))
}

/// Fresh keys of a device; the one-time prekey among them is used up, whatever comes of it.
fn take_bundle(world: &World, device: &Device) -> Result<PreKeyBundle> {
    let mut batch = Batch::default();
    let mut state = device.lock();
    let prekey = device.take_prekey(&mut state, &mut batch);
    world.journal.commit(batch);
    crate::iq::warn_of_few_prekeys(&state);
    state.bundle(device.id, prekey.as_ref())
}

/// Encrypts a message that a device couldn't read for it again, in a new session, under its id.
pub(crate) fn resend(
    world: &World,
    account: &Account,
    device: &Device,
    id: &str,
    keys: Option<PreKeyBundle>,
    count: u32,
) -> Result<()> {
    let origin = {
        let state = device.lock();
        state.queue.get(id).map(|waiting| waiting.origin.clone())
    };
    let Some(Origin::Phone {
        phone,
        group,
        content,
    }) = origin
    else {
        bail!("{} waits for no message {id} from a phone", account.phone);
    };
    let sender = world.account(&phone)?;
    let mut batch = Batch::default();
    let mut handset = sender.handset();
    let keys = match keys {
        Some(keys) => keys,
        None => take_bundle(world, device)?,
    };
    let address = address(device);
    handset.start_session(&address, &keys)?;
    let content = match &group {
        Some(group) => {
            let key = handset.distribution(group, &mut batch)?;
            handset.distributed(group, &address, &mut batch);
            distribution(group, key, Some(&content))
        }
        None => content,
    };
    let message = handset.encrypt(&address, &pad(&content), &mut batch)?;
    let mut state = device.lock();
    let name = device.name();
    let Some(mut waiting) = state.queue.remove(&name, id, &mut batch) else {
        return Ok(());
    };
    waiting.stanza = with_enc(&waiting.stanza, enc(&message, Some(count)))?;
    waiting.parked = false;
    waiting.resent = true;
    device.enqueue(&mut state, waiting, &mut batch);
    let position = world.journal.commit(batch);
    world.stats.resends.add();
    device.put_on_wire(&state, id, position);
    Ok(())
}

/// The phone shares its app state key with a device that was just linked.
pub(crate) fn share_app_state_key(world: &World, account: &Account, device: &Device) -> Result<()> {
    let key = AppStateSyncKey {
        key_id: MessageField::some(AppStateSyncKeyId {
            key_id: Some(account.keys.app_state_key_id.to_vec()),
        }),
        key_data: MessageField::some(AppStateSyncKeyData {
            key_data: Some(account.keys.app_state_key.to_vec()),
            fingerprint: MessageField::some(AppStateSyncKeyFingerprint {
                raw_id: Some(account.keys.registration_id),
                current_index: Some(0),
                device_indexes: vec![0],
            }),
            timestamp: Some(account.created * 1000),
        }),
    };
    let message = Message {
        protocol_message: MessageField::some(ProtocolMessage {
            r#type: Some(protocol_message::Type::APP_STATE_SYNC_KEY_SHARE),
            app_state_sync_key_share: MessageField::some(AppStateSyncKeyShare { keys: vec![key] }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let content = message.encode_to_vec();
    let mut batch = Batch::default();
    let mut handset = account.handset();
    let sealed = seal(world, &mut handset, device, &content, &mut batch)?;
    let id = message_id();
    let stanza = NodeBuilder::new("message")
        .attr("from", account.jid())
        .attr("id", id.as_str())
        .attr("t", unix_time())
        .attr("type", "text")
        .attr("category", "peer")
        .children([enc(&sealed, None)])
        .build();
    let mut state = device.lock();
    state.profile.key_shared = true;
    device.keep(&state, &mut batch);
    let waiting = Waiting {
        id: id.clone(),
        stanza: encode(&stanza).to_vec(),
        ledger: None,
        origin: Origin::Phone {
            phone: account.phone.clone(),
            group: None,
            content,
        },
        parked: false,
        resent: false,
    };
    device.enqueue(&mut state, waiting, &mut batch);
    let position = world.journal.commit(batch);
    device.put_on_wire(&state, &id, position);
    Ok(())
}

fn address(device: &Device) -> ProtocolAddress {
    ProtocolAddress::new(&device.phone, u32::from(device.id).into())
}
