//! A simulated phone writes: to every linked device of an account, each over its own ratchet.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use wacore::messages::MessageUtils;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};
use wacore_libsignal::protocol::{PreKeyBundle, PreKeySignalMessage};
use waproto::buffa::{Message as _, MessageField};
use waproto::whatsapp::Message;
use waproto::whatsapp::message::{
    AppStateSyncKey, AppStateSyncKeyData, AppStateSyncKeyFingerprint, AppStateSyncKeyId,
    AppStateSyncKeyShare, ProtocolMessage, SenderKeyDistributionMessage, protocol_message,
};

use crate::account::Account;
use crate::device::Device;
use crate::handset::{Handset, Sealed};
use crate::journal::Batch;
use crate::ledger;
use crate::offline::{Origin, Waiting};
use crate::stanza::{encode, message_id};
use crate::world::{World, unix_millis, unix_time};

/// How the sender of a message is named.
#[derive(Clone, Copy, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Addressing {
    /// By number, with the LID beside it.
    #[default]
    Pn,
    /// By LID, with the number beside it.
    Lid,
    /// By LID alone.
    LidOnly,
}

/// A message to be written.
pub(crate) struct Letter {
    pub(crate) id: String,
    pub(crate) account: Arc<Account>,
    /// The other side of the chat.
    pub(crate) contact: Arc<Account>,
    /// The account's own phone writes to the contact, and its linked devices get a copy.
    pub(crate) from_me: bool,
    /// Id of the group that it is written in.
    pub(crate) group: Option<String>,
    /// The protobuf that is encrypted.
    pub(crate) content: Arc<Vec<u8>>,
    pub(crate) stanza_type: String,
    pub(crate) addressing: Addressing,
    /// Damage the ciphertext.
    pub(crate) corrupt: bool,
}

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
    for (device, key) in devices.iter().zip(given) {
        let mut encs: Vec<Node> = key.iter().map(|key| enc(key, None)).collect();
        match &group_message {
            Some(message) => encs.push(enc(&damaged(message, letter.corrupt)?, None)),
            None => {
                let message = seal(world, &mut handset, device, &letter.direct(), &mut batch)?;
                encs.push(enc(&damaged(&message, letter.corrupt)?, None));
            }
        }
        sealed.push(encode(&letter.envelope(encs)).to_vec());
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

impl Letter {
    fn sender(&self) -> &Account {
        match self.from_me {
            true => &self.account,
            false => &self.contact,
        }
    }

    /// What is encrypted for a device outside groups.
    fn direct(&self) -> Vec<u8> {
        if !self.from_me {
            return self.content.to_vec();
        }
        // The copy of an own message says to whom it went. It is put together by hand, so that
        // content that no schema knows stays in it.
        const DEVICE_SENT_MESSAGE: u32 = 31;
        let mut copy = field(1, self.contact.jid().to_string().as_bytes());
        copy.extend(field(2, &self.content));
        field(DEVICE_SENT_MESSAGE, &copy)
    }

    fn envelope(&self, encs: Vec<Node>) -> Node {
        let sender = self.sender();
        let (by, beside) = match self.addressing {
            Addressing::Pn => (sender.jid(), Some(sender.lid_jid())),
            Addressing::Lid => (sender.lid_jid(), Some(sender.jid())),
            Addressing::LidOnly => (sender.lid_jid(), None),
        };
        let by_number = self.addressing == Addressing::Pn;
        let mut message = NodeBuilder::new("message")
            .attr("id", self.id.as_str())
            .attr("t", unix_time())
            .attr("type", self.stanza_type.as_str())
            .attr("notify", sender.standing().name);
        message = match &self.group {
            Some(group) => message
                .attr("from", Jid::group(group.as_str()))
                .attr("participant", by)
                .attr("addressing_mode", if by_number { "pn" } else { "lid" }),
            None => message.attr("from", by),
        };
        if self.from_me && self.group.is_none() {
            message = message.attr("recipient", self.contact.jid());
        }
        let beside_name = match (self.group.is_some(), by_number) {
            (true, true) => "participant_lid",
            (true, false) => "participant_pn",
            (false, true) => "sender_lid",
            (false, false) => "sender_pn",
        };
        if let Some(beside) = beside {
            message = message.attr(beside_name, beside);
        }
        message.children(encs).build()
    }

    fn record(&self, devices: &[Arc<Device>]) -> ledger::Message {
        let lines = devices.iter().map(|device| ledger::Line {
            device: device.id,
            deliveries: 0,
            acked_at: None,
        });
        let (from, to) = match self.from_me {
            true => (&self.account, &self.contact),
            false => (&self.contact, &self.account),
        };
        ledger::Message {
            id: self.id.clone(),
            account: self.account.phone.clone(),
            from: from.phone.clone(),
            to: to.phone.clone(),
            group: self.group.clone(),
            sent_at: unix_millis(),
            devices: lines.collect(),
        }
    }

    fn origin(&self) -> Origin {
        Origin::Phone {
            phone: self.sender().phone.clone(),
            group: self.group.clone(),
            content: match self.group {
                Some(_) => self.content.to_vec(),
                None => self.direct(),
            },
        }
    }
}

/// A length-delimited field of a protobuf.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 12);
    for mut value in [u64::from(number << 3 | 2), bytes.len() as u64] {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    out.extend_from_slice(bytes);
    out
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

/// A sender key in a message, alone or with what was written.
fn distribution(group: &str, key: Vec<u8>, content: Option<&[u8]>) -> Vec<u8> {
    let message = Message {
        sender_key_distribution_message: MessageField::some(SenderKeyDistributionMessage {
            group_id: Some(Jid::group(group).to_string()),
            axolotl_sender_key_distribution_message: Some(key),
        }),
        ..Default::default()
    };
    let mut bytes = message.encode_to_vec();
    // Protobufs that follow one another are one message.
    bytes.extend_from_slice(content.unwrap_or_default());
    bytes
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

/// The same stanza around another ciphertext.
fn with_enc(stanza: &[u8], enc: Node) -> Result<Vec<u8>> {
    let node = wacore_binary::OwnedNodeRef::new(stanza[1..].to_vec())?;
    let mut node = node.to_owned_node();
    node.content = Some(wacore_binary::NodeContent::Nodes(vec![enc]));
    Ok(encode(&node).to_vec())
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

fn address(device: &Device) -> wacore_libsignal::protocol::ProtocolAddress {
    wacore_libsignal::protocol::ProtocolAddress::new(&device.phone, u32::from(device.id).into())
}

fn pad(content: &[u8]) -> Vec<u8> {
    MessageUtils::pad_message_v2(content.to_vec())
}

fn enc(sealed: &Sealed, count: Option<u32>) -> Node {
    let mut enc = NodeBuilder::new("enc")
        .attr("v", 2)
        .attr("type", sealed.kind);
    if let Some(count) = count {
        enc = enc.attr("count", count);
    }
    enc.bytes(sealed.bytes.as_slice()).build()
}

/// Spoils the MAC or the signature; the envelope around it stays readable.
fn damaged(sealed: &Sealed, corrupt: bool) -> Result<Sealed> {
    let mut bytes = sealed.bytes.clone();
    if corrupt {
        let mut end = bytes.len();
        if sealed.kind == "pkmsg" {
            let outer = PreKeySignalMessage::try_from(sealed.bytes.as_slice())?;
            let inner = outer.message().serialized();
            let at = bytes.windows(inner.len()).position(|part| part == inner);
            end = at.context("a pkmsg holds its message")? + inner.len();
        }
        bytes[end - 1] ^= 0xff;
    }
    Ok(Sealed {
        kind: sealed.kind,
        bytes,
    })
}
