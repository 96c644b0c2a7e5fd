//! Ids that are derived from what they name, so that a second run of anything meets the first one's
//! rows.
//!
//! The layout is UUIDv8 (RFC 9562, section 5.8): 48 bits of unix milliseconds, then bits of a SHA-256.
//! Like UUIDv7 they sort near time order, and a range of them is a range of time.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::event_type::EventType;

/// What makes a WhatsApp message the same message when it comes again.
///
/// `chat` and `sender` are the stanza's own, never looked up: a LID's phone number may be learnt
/// between two deliveries of one stanza.
#[derive(Debug, Clone, Copy)]
pub struct MessageKey<'a> {
    pub connection: Uuid,
    pub chat: &'a str,
    /// Without a device.
    pub sender: &'a str,
    /// The id that the sender's WhatsApp gave it; two chats may use the same one.
    pub message_id: &'a str,
    /// The stanza's `t`, in seconds.
    pub timestamp: DateTime<Utc>,
}

/// The id of a message that was read.
pub fn message(key: MessageKey<'_>) -> Uuid {
    message_under("message", key)
}

/// The id of a stanza that could not be decrypted: never its message's, so that a later good copy of
/// the message is not taken for a repetition.
pub fn undecryptable(key: MessageKey<'_>) -> Uuid {
    message_under("undecryptable", key)
}

fn message_under(domain: &str, key: MessageKey<'_>) -> Uuid {
    derive(
        key.timestamp,
        domain,
        &[
            key.connection.as_bytes(),
            key.chat.as_bytes(),
            key.sender.as_bytes(),
            key.message_id.as_bytes(),
            &key.timestamp.timestamp().to_be_bytes(),
        ],
    )
}

/// The id of what is said of a sent message: by whom, and what.
pub fn receipt(key: MessageKey<'_>, kind: &str) -> Uuid {
    derive(
        key.timestamp,
        "receipt",
        &[
            key.connection.as_bytes(),
            key.chat.as_bytes(),
            key.sender.as_bytes(),
            key.message_id.as_bytes(),
            kind.as_bytes(),
        ],
    )
}

/// The id of what happened to a connection at that time besides messages, by WhatsApp's name for it.
pub fn occurrence(connection: Uuid, what: EventType, name: &str, at: DateTime<Utc>) -> Uuid {
    derive(
        at,
        "occurrence",
        &[
            connection.as_bytes(),
            what.as_str().as_bytes(),
            name.as_bytes(),
        ],
    )
}

/// The id of a change of a connection: its `number`th, at `at`.
pub fn transition(connection: Uuid, number: i64, at: DateTime<Utc>) -> Uuid {
    derive(
        at,
        "transition",
        &[connection.as_bytes(), &number.to_be_bytes()],
    )
}

/// The id of the event that `source` becomes for one webhook. It keeps the source's time.
pub fn event(event_type: EventType, source: Uuid, webhook: Uuid) -> Uuid {
    derive_at(
        &source.as_bytes()[..6],
        "event",
        &[
            event_type.as_str().as_bytes(),
            source.as_bytes(),
            webhook.as_bytes(),
        ],
    )
}

/// The id of a request that carries several events: the same for the same ones in the same order. It has
/// the first one's time.
pub fn batch(events: impl Iterator<Item = Uuid>) -> Uuid {
    let events: Vec<Uuid> = events.collect();
    let parts: Vec<&[u8]> = events.iter().map(|id| id.as_bytes().as_slice()).collect();
    let prefix = events.first().copied().unwrap_or_default();
    derive_at(&prefix.as_bytes()[..6], "batch", &parts)
}

/// The least id of a moment: ids made before it are less, ids made from it on are not.
pub fn floor(at: DateTime<Utc>) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis(at));
    Uuid::from_bytes(bytes)
}

fn derive(at: DateTime<Utc>, domain: &str, parts: &[&[u8]]) -> Uuid {
    derive_at(&millis(at), domain, parts)
}

fn millis(at: DateTime<Utc>) -> [u8; 6] {
    let millis = at.timestamp_millis().clamp(0, (1 << 48) - 1);
    let bytes = millis.to_be_bytes();
    [bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]
}

/// Each part is hashed behind its length, so that no two lists of parts read the same.
fn derive_at(prefix: &[u8], domain: &str, parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in std::iter::once(&domain.as_bytes()).chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(prefix);
    bytes[6..].copy_from_slice(&digest[..10]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(chat: &str) -> MessageKey<'_> {
        MessageKey {
            connection: Uuid::nil(),
            chat,
            sender: "5511999999999@s.whatsapp.net",
            message_id: "3EB0",
            timestamp: DateTime::from_timestamp(1_764_000_000, 0).unwrap(),
        }
    }

    #[test]
    fn the_same_message_has_the_same_id_and_another_chat_another() {
        assert_eq!(message(key("a@g.us")), message(key("a@g.us")));
        assert_ne!(message(key("a@g.us")), message(key("b@g.us")));
    }

    #[test]
    fn an_undecryptable_stanza_never_takes_its_messages_id() {
        assert_ne!(message(key("a@g.us")), undecryptable(key("a@g.us")));
    }

    #[test]
    fn ids_are_version_8_with_the_milliseconds_in_front() {
        let id = message(key("a@g.us"));
        assert_eq!(id.get_version_num(), 8);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        let millis = u64::from_be_bytes(id.as_bytes()[..8].try_into().unwrap()) >> 16;
        assert_eq!(millis, 1_764_000_000_000);
    }

    #[test]
    fn an_event_lies_in_its_sources_range() {
        let source = message(key("a@g.us"));
        let event = event(EventType::Message, source, Uuid::max());
        assert_eq!(event.as_bytes()[..6], source.as_bytes()[..6]);
        let from = floor(key("").timestamp);
        assert!(
            from <= event && event < floor(key("").timestamp + chrono::TimeDelta::milliseconds(1))
        );
    }

    #[test]
    fn parts_cannot_run_into_one_another() {
        let at = key("").timestamp;
        assert_ne!(
            derive(at, "d", &[b"ab", b"c"]),
            derive(at, "d", &[b"a", b"bc"])
        );
    }

    #[test]
    fn times_outside_the_layout_are_clamped() {
        let ancient = DateTime::from_timestamp(-1, 0).unwrap();
        assert_eq!(floor(ancient), Uuid::nil());
    }

    fn at() -> impl Strategy<Value = DateTime<Utc>> {
        // To the year 10889, where 48 bits of milliseconds end.
        (0_i64..1 << 48).prop_map(|millis| DateTime::from_timestamp_millis(millis).unwrap())
    }

    fn ids() -> impl Strategy<Value = Uuid> {
        any::<u128>().prop_map(Uuid::from_u128)
    }

    fn event_type() -> impl Strategy<Value = EventType> {
        prop::sample::select(EventType::ALL)
    }

    proptest! {
        #[test]
        fn an_id_lies_between_the_floors_of_its_millisecond_and_the_next(
            at in at(), chat in ".{0,40}", sender in ".{0,40}", message_id in ".{0,40}", connection in ids(),
            number: i64, webhook in ids(), kind in event_type(),
        ) {
            let key = MessageKey { connection, chat: &chat, sender: &sender, message_id: &message_id, timestamp: at };
            let source = transition(connection, number, at);
            for id in [message(key), undecryptable(key), source, event(kind, source, webhook)] {
                prop_assert_eq!(id.get_version_num(), 8);
                prop_assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
                prop_assert!(floor(at) <= id);
                let next = at + chrono::TimeDelta::milliseconds(1);
                prop_assert!(id < floor(next) || floor(next) == floor(at));
            }
        }

        #[test]
        fn ids_are_in_the_order_of_their_times(one in at(), other in at(), id in ids()) {
            let (one, other) = (one.min(other), one.max(other));
            let apart = other.timestamp_millis() - one.timestamp_millis() >= 1;
            if apart {
                prop_assert!(transition(id, 1, one) < transition(id, 1, other));
            }
        }

        /// Of a message: whichever part differs, it is another message.
        #[test]
        fn another_part_is_another_id(
            parts in prop::array::uniform3("[a-z@.]{0,6}"), others in prop::array::uniform3("[a-z@.]{0,6}"),
            connections in prop::array::uniform2(ids()),
        ) {
            let key = |connection, parts: &[String; 3]| message(MessageKey {
                connection, chat: &parts[0], sender: &parts[1], message_id: &parts[2],
                timestamp: DateTime::UNIX_EPOCH,
            });
            let (one, other) = (key(connections[0], &parts), key(connections[1], &others));
            prop_assert_eq!(one == other, connections[0] == connections[1] && parts == others);
            prop_assert_eq!(key(connections[0], &parts), one);
            prop_assert_eq!(key(connections[0], &others) == one, parts == others);
        }

        #[test]
        fn one_source_becomes_another_event_for_each_type_and_webhook(
            source in ids(), webhooks in prop::array::uniform2(ids()), kinds in prop::array::uniform2(event_type()),
        ) {
            let same = webhooks[0] == webhooks[1] && kinds[0] == kinds[1];
            let (one, other) = (event(kinds[0], source, webhooks[0]), event(kinds[1], source, webhooks[1]));
            prop_assert_eq!(one == other, same);
        }
    }
}
