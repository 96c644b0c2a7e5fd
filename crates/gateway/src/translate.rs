//! From what WhatsApp sent to the row and the payload that a client gets. Pure: the same stanza gives the
//! same row, however often it comes and whatever was learnt in between.
//!
//! The id is made of what the stanza itself says. Whatever was looked up ([`Numbers`]) may only change how
//! people are named.
//!
//! `docs/PAYLOADS.md` says for clients what comes of each kind of message; each has its family's module here.

mod bounds;
mod change;
mod contacts;
mod content;
mod context;
mod event;
mod invite;
mod kind;
mod location;
mod media;
mod menu;
mod metadata;
mod numbers;
mod parties;
mod payment;
mod poll;
mod reply;
mod setting;
mod text;
mod time;
mod trade;
mod wrapper;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use domain::event_type::EventType;
use domain::ids::{self, MessageKey};
use domain::keyring::Keyring;
use domain::media::File;
use domain::message::{NewMessage, storable, storable_id};
use domain::phone::Phone;
use serde_json::{Map, Value};
use uuid::Uuid;
use whatsapp_rust::Jid;
use whatsapp_rust::types::message::{MessageCategory, MessageInfo, MessageSource};
use whatsapp_rust::wacore_binary::JidExt;
use whatsapp_rust::waproto::codec::{message_encode_into, message_encoded_len};
use whatsapp_rust::waproto::whatsapp as wa;

pub(crate) use self::numbers::{Numbers, wanted};
use self::parties::Parties;
pub(crate) use self::parties::person;

/// Whose messages these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) connection_id: Uuid,
    pub(crate) client_id: i32,
    /// Digits, as the connection was registered.
    pub(crate) phone_number: String,
}

impl Owner {
    /// Whether an address is the number that the connection was registered for.
    pub(crate) fn has_number(&self, pn: &Jid) -> bool {
        let key = |text: &str| text.parse::<Phone>().ok().map(|phone| phone.key());
        pn.server.is_pn_family() && {
            let registered = key(&self.phone_number);
            registered.is_some() && registered == key(&pn.user)
        }
    }
}

/// Why there is no message to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undecryptable {
    /// Its keys did not fit; the sender was asked to send it again.
    Decryption,
    /// WhatsApp says that this device cannot have it.
    Unavailable,
    /// It was decrypted once, and its text did not survive.
    BodyLost,
    /// It is encrypted in a way that this version does not know.
    UnknownEncryption,
}

impl Undecryptable {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Decryption => "decryption_failed",
            Self::Unavailable => "unavailable",
            Self::BodyLost => "body_lost",
            Self::UnknownEncryption => "unknown_encryption",
        }
    }
}

/// Whether this is what the account's own devices tell each other: keys and state, nothing that a person
/// wrote. It must never be stored or shown.
pub(crate) fn is_internal(info: &MessageInfo, message: &wa::Message) -> bool {
    info.category == MessageCategory::Peer
        || info.source.is_from_me
            && wrapper::unwrap(message)
                .message
                .protocol_message
                .as_option()
                .is_some_and(speaks_to_devices)
}

fn speaks_to_devices(protocol: &wa::message::ProtocolMessage) -> bool {
    protocol.history_sync_notification.is_set()
        || protocol.app_state_sync_key_share.is_set()
        || protocol.app_state_sync_key_request.is_set()
        || protocol.initial_security_notification_setting_sync.is_set()
        || protocol.app_state_fatal_exception_notification.is_set()
        || protocol.peer_data_operation_request_message.is_set()
        || protocol
            .peer_data_operation_request_response_message
            .is_set()
        || protocol.lid_migration_mapping_sync_message.is_set()
}

/// What became of a message.
#[derive(Debug)]
pub(crate) struct Translated {
    row: NewMessage,
    /// What is still to be sealed before it may stand in the row.
    file: Option<File>,
}

impl Translated {
    /// The row as it is committed.
    pub(crate) fn sealed(self, keyring: &Keyring) -> NewMessage {
        let mut row = self.row;
        row.media = self.file.map(|file| file.seal(keyring, row.id));
        row
    }
}

/// A message that was decrypted.
pub(crate) fn message(
    owner: &Owner,
    info: &MessageInfo,
    message: &wa::Message,
    numbers: &Numbers,
) -> Translated {
    let parties = Parties::of(owner, info, numbers);
    let content = content::of(&wrapper::unwrap(message), &parties);
    let event_type = match (&content, info.source.is_from_me) {
        (_, true) => EventType::MessageSent,
        (Some(content), false) => content.event,
        (None, false) => EventType::Message,
    };
    let mut details = metadata::of(&parties);
    let Some(content) = content else {
        metadata::put(&mut details, "kind", kind::of(message).as_deref());
        let row = NewMessage {
            message_type: "unsupported".to_owned(),
            raw: Some(raw(message)),
            ..row(parties, event_type, ids::message, details)
        };
        return Translated { row, file: None };
    };
    details.extend(content.details);
    if let (Some(_), Some(Value::Object(media))) = (&content.file, details.get_mut("media")) {
        // By which the client asks for it.
        let id = derived(&parties, ids::message).to_string();
        media.insert("id".to_owned(), id.into());
    }
    let row = NewMessage {
        message_type: content.message_type.to_owned(),
        content: content.text.into_owned(),
        raw: content.keep_raw.then(|| raw(message)),
        ..row(parties, event_type, ids::message, details)
    };
    Translated {
        row,
        file: content.file,
    }
}

/// A stanza of which only the envelope could be read.
pub(crate) fn undecryptable(
    owner: &Owner,
    info: &MessageInfo,
    why: Undecryptable,
    numbers: &Numbers,
) -> NewMessage {
    let parties = Parties::of(owner, info, numbers);
    let mut details = metadata::of(&parties);
    metadata::put(&mut details, "reason", Some(why.as_str()));
    NewMessage {
        message_type: "undecryptable".to_owned(),
        ..row(
            parties,
            EventType::MessageUndecryptable,
            ids::undecryptable,
            details,
        )
    }
}

/// A message that this account sent through the API, to an address, at that second.
pub(crate) fn sent(
    owner: &Owner,
    sender: Option<Jid>,
    to: &str,
    message_id: &str,
    at: DateTime<Utc>,
    message: &wa::Message,
) -> Translated {
    let chat: Jid = to.parse().unwrap_or_default();
    let info = MessageInfo {
        id: message_id.to_owned(),
        source: MessageSource {
            is_from_me: true,
            is_group: chat.is_group(),
            sender: sender.unwrap_or_default(),
            chat,
            ..Default::default()
        },
        timestamp: at,
        ..Default::default()
    };
    self::message(owner, &info, message, &Numbers::default())
}

/// A message whose text did not survive; chat and sender are addresses as the library writes them.
///
/// Nothing tells its `t` any more. Its id takes the day instead, so that to tell it again adds nothing.
pub(crate) fn lost(
    owner: &Owner,
    chat: &str,
    sender: &str,
    message_id: &str,
    now: DateTime<Utc>,
) -> NewMessage {
    let info = MessageInfo {
        id: message_id.to_owned(),
        source: MessageSource {
            chat: chat.parse().unwrap_or_default(),
            sender: sender.parse().unwrap_or_default(),
            ..Default::default()
        },
        timestamp: now.duration_trunc(TimeDelta::days(1)).unwrap_or(now),
        ..Default::default()
    };
    let nobody = Numbers::default();
    let mut row = undecryptable(owner, &info, Undecryptable::BodyLost, &nobody);
    row.timestamp = now;
    row
}

/// The form in which PostgreSQL can hold a row that it refused: the message itself goes to `raw`. It keeps
/// its id.
pub(crate) fn unsupported(
    refused: &NewMessage,
    message: Option<&wa::Message>,
    reason: &str,
) -> NewMessage {
    let kind = message.and_then(kind::of);
    let mut details = Map::new();
    for (name, text) in [
        ("chat", Some(refused.chat.as_str())),
        ("reason", Some(reason)),
        ("kind", kind.as_deref()),
    ] {
        metadata::put(&mut details, name, text);
    }
    NewMessage {
        message_id: storable_id(&refused.message_id),
        chat: storable(&refused.chat),
        from: storable(&refused.from),
        to: storable(&refused.to),
        message_type: "unsupported".to_owned(),
        content: String::new(),
        metadata: metadata::written(details),
        raw: message.map(raw),
        ..refused.clone()
    }
}

/// A row of no type and content yet.
fn row(
    parties: Parties<'_>,
    event_type: EventType,
    id: fn(MessageKey<'_>) -> Uuid,
    details: Map<String, Value>,
) -> NewMessage {
    let (owner, info) = (parties.owner(), parties.info());
    NewMessage {
        id: derived(&parties, id),
        client_id: owner.client_id,
        connection_id: owner.connection_id,
        event_type,
        message_id: info.id.clone(),
        chat: info.source.chat.to_non_ad_string(),
        from: parties.from,
        to: parties.to,
        message_type: String::new(),
        content: String::new(),
        metadata: metadata::written(details),
        timestamp: storable_time(info.timestamp),
        raw: None,
        media: None,
    }
}

fn derived(parties: &Parties<'_>, id: fn(MessageKey<'_>) -> Uuid) -> Uuid {
    let source = &parties.info().source;
    id(MessageKey {
        connection: parties.owner().connection_id,
        chat: &source.chat.to_non_ad_string(),
        sender: &source.sender.to_non_ad_string(),
        message_id: &parties.info().id,
        timestamp: storable_time(parties.info().timestamp),
    })
}

/// A time that a stanza says, within what PostgreSQL and RFC 3339 can hold.
pub(crate) fn storable_time(said: DateTime<Utc>) -> DateTime<Utc> {
    const YEAR_10000: i64 = 253_402_300_800;
    let last = DateTime::from_timestamp(YEAR_10000 - 1, 0).unwrap_or(said);
    said.clamp(DateTime::UNIX_EPOCH, last)
}

/// The protobuf, without the group's sender keys that may travel in it.
fn raw(message: &wa::Message) -> Vec<u8> {
    let carries_keys = message.sender_key_distribution_message.is_set()
        || message
            .fast_ratchet_key_sender_key_distribution_message
            .is_set();
    let stripped;
    let message = match carries_keys {
        false => message,
        true => {
            let mut copy = message.clone();
            copy.sender_key_distribution_message = Default::default();
            copy.fast_ratchet_key_sender_key_distribution_message = Default::default();
            stripped = copy;
            &stripped
        }
    };
    let mut bytes = Vec::with_capacity(message_encoded_len(message));
    message_encode_into(message, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
