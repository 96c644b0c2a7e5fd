//! From what WhatsApp sent to the row and the payload that a client gets. Pure: the same stanza gives the
//! same row, however often it comes and whatever was learnt in between.
//!
//! The id is made of what the stanza itself says. Whatever was looked up may only add to `metadata`; no
//! look-up is made here, since the stanza names both addresses of a sender where it knows them.

mod kind;
mod parties;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use domain::event_type::EventType;
use domain::ids::{self, MessageKey};
use domain::message::{NewMessage, storable, storable_id};
use serde_json::{Map, Value};
use uuid::Uuid;
use whatsapp_rust::Jid;
use whatsapp_rust::types::message::{MessageCategory, MessageInfo, MessageSource};
use whatsapp_rust::wacore_binary::JidExt;
use whatsapp_rust::waproto::codec::{message_encode_into, message_encoded_len};
use whatsapp_rust::waproto::whatsapp as wa;

use self::parties::Parties;

/// Whose messages these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) connection_id: Uuid,
    pub(crate) client_id: i32,
    /// Digits, as the connection was registered.
    pub(crate) phone_number: String,
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
}

impl Undecryptable {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Decryption => "decryption_failed",
            Self::Unavailable => "unavailable",
            Self::BodyLost => "body_lost",
        }
    }
}

/// Whether this is what the account's own devices tell each other: keys and state, nothing that a person
/// wrote. It must never be stored or shown.
pub(crate) fn is_internal(info: &MessageInfo, message: &wa::Message) -> bool {
    info.category == MessageCategory::Peer
        || info.source.is_from_me
            && unwrapped(message)
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

/// A message that was decrypted.
pub(crate) fn message(owner: &Owner, info: &MessageInfo, message: &wa::Message) -> NewMessage {
    let event_type = match info.source.is_from_me {
        true => EventType::MessageSent,
        false => EventType::Message,
    };
    let mut row = row(owner, info, event_type, ids::message);
    match text(unwrapped(message)) {
        Some(text) => {
            row.message_type = "text".to_owned();
            row.content = text.to_owned();
        }
        None => {
            row.message_type = "unsupported".to_owned();
            row.metadata = with(&row.metadata, "kind", kind::of(message));
            row.raw = Some(raw(message));
        }
    }
    row
}

/// A stanza of which only the envelope could be read.
pub(crate) fn undecryptable(owner: &Owner, info: &MessageInfo, why: Undecryptable) -> NewMessage {
    let mut row = row(
        owner,
        info,
        EventType::MessageUndecryptable,
        ids::undecryptable,
    );
    row.message_type = "undecryptable".to_owned();
    row.metadata = with(&row.metadata, "reason", Some(why.as_str()));
    row
}

/// A message that this account sent through the API, to an address, at that second.
pub(crate) fn sent(
    owner: &Owner,
    sender: Option<Jid>,
    to: &str,
    message_id: &str,
    at: DateTime<Utc>,
    message: &wa::Message,
) -> NewMessage {
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
    self::message(owner, &info, message)
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
    let mut row = undecryptable(owner, &info, Undecryptable::BodyLost);
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
    let mut metadata = with("{\"v\":1}", "reason", Some(reason));
    metadata = with(&metadata, "chat", Some(&storable(&refused.chat)));
    metadata = with(&metadata, "kind", message.and_then(kind::of));
    NewMessage {
        message_id: storable_id(&refused.message_id),
        chat: storable(&refused.chat),
        from: storable(&refused.from),
        to: storable(&refused.to),
        message_type: "unsupported".to_owned(),
        content: String::new(),
        metadata,
        raw: message.map(raw),
        ..refused.clone()
    }
}

fn row(
    owner: &Owner,
    info: &MessageInfo,
    event_type: EventType,
    id: fn(MessageKey<'_>) -> Uuid,
) -> NewMessage {
    let source = &info.source;
    let (chat, sender) = (
        source.chat.to_non_ad_string(),
        source.sender.to_non_ad_string(),
    );
    let key = MessageKey {
        connection: owner.connection_id,
        chat: &chat,
        sender: &sender,
        message_id: &info.id,
        timestamp: info.timestamp,
    };
    let parties = Parties::of(owner, source);
    NewMessage {
        id: id(key),
        client_id: owner.client_id,
        connection_id: owner.connection_id,
        event_type,
        message_id: info.id.clone(),
        metadata: metadata(info, &chat, &parties),
        chat,
        from: parties.from,
        to: parties.to,
        message_type: String::new(),
        content: String::new(),
        timestamp: info.timestamp,
        raw: None,
    }
}

fn metadata(info: &MessageInfo, chat: &str, parties: &Parties) -> String {
    let mut map = Map::new();
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            map.insert(name.to_owned(), value.into());
        }
    };
    put("chat", Some(chat));
    put("push_name", Some(&info.push_name));
    put("sender_lid", parties.sender_lid.as_deref());
    put("sender_pn", parties.sender_pn.as_deref());
    if info.source.is_group && info.source.chat.is_group() {
        map.insert("group".to_owned(), true.into());
    }
    map.insert("v".to_owned(), 1.into());
    Value::Object(map).to_string()
}

/// The metadata with one more text.
fn with(metadata: &str, name: &str, value: Option<&str>) -> String {
    let Some(value) = value else {
        return metadata.to_owned();
    };
    let mut map: Map<String, Value> =
        serde_json::from_str(metadata).expect("metadata is an object that was written here");
    map.insert(name.to_owned(), value.into());
    Value::Object(map).to_string()
}

/// The message inside of the wrappers that say how long or how often it may be seen, or that it was
/// written on another device of the account.
fn unwrapped(message: &wa::Message) -> &wa::Message {
    let sent = message.device_sent_message.as_option();
    let inner = sent.and_then(|sent| sent.message.as_option()).or_else(|| {
        [
            &message.ephemeral_message,
            &message.view_once_message,
            &message.view_once_message_v2,
            &message.view_once_message_v2_extension,
        ]
        .into_iter()
        .find_map(|wrapper| wrapper.as_option()?.message.as_option())
    });
    inner.map_or(message, unwrapped)
}

fn text(message: &wa::Message) -> Option<&str> {
    let extended = message.extended_text_message.as_option();
    message
        .conversation
        .as_deref()
        .or_else(|| extended?.text.as_deref())
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
