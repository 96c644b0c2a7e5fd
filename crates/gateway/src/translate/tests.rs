use std::sync::LazyLock;

use domain::payload::Payload;
use serde_json::value::RawValue;
use testkit::Payloads;
use whatsapp_rust::types::message::{AddressingMode, MessageSource};
use whatsapp_rust::waproto::buffa::{Message as _, MessageField};

use super::*;

/// A message that holds one thing.
macro_rules! holds {
    ($field:ident: $value:expr) => {
        wa::Message {
            $field: MessageField::some($value),
            ..Default::default()
        }
    };
}

/// A message in a wrapper.
macro_rules! wraps {
    ($field:ident: $inner:expr) => {
        holds!($field: wa::message::FutureProofMessage {
            message: MessageField::some($inner),
        })
    };
}

mod changes;
mod context;
mod media;
mod menus;
mod odd;
mod people;
mod polls;
mod things;
mod trade;

fn owner() -> Owner {
    Owner {
        connection_id: Uuid::from_u128(7),
        client_id: 3,
        phone_number: "5511888888888".to_owned(),
    }
}

fn jid(text: &str) -> Jid {
    text.parse().unwrap()
}

fn info(source: MessageSource) -> MessageInfo {
    MessageInfo {
        id: "3EB0C0FFEE".to_owned(),
        push_name: "Ana".to_owned(),
        timestamp: DateTime::from_timestamp(1_764_000_000, 0).unwrap(),
        source,
        ..Default::default()
    }
}

fn direct() -> MessageSource {
    MessageSource {
        chat: jid("5511999999999@s.whatsapp.net"),
        sender: jid("5511999999999:2@s.whatsapp.net"),
        sender_alt: Some(jid("100000012345678@lid")),
        ..Default::default()
    }
}

fn family() -> MessageSource {
    MessageSource {
        chat: jid("120363021033254949@g.us"),
        sender: jid("100000012345678:4@lid"),
        sender_alt: Some(jid("5511999999999@s.whatsapp.net")),
        is_group: true,
        addressing_mode: Some(AddressingMode::Lid),
        ..Default::default()
    }
}

/// The row, which is checked against the published schema.
fn translated(info: &MessageInfo, source: &wa::Message) -> NewMessage {
    let row = message(&owner(), info, source, &Numbers::default()).row;
    check(&row);
    row
}

fn check(row: &NewMessage) {
    static PAYLOADS: LazyLock<Payloads> = LazyLock::new(Payloads::default);
    let metadata: &RawValue = serde_json::from_str(&row.metadata).unwrap();
    let payload = serde_json::to_value(Payload {
        client_id: row.client_id,
        message_id: &row.message_id,
        from: &row.from,
        to: &row.to,
        timestamp: row.timestamp,
        message_type: &row.message_type,
        content: &row.content,
        metadata,
        event: row.event_type.as_str(),
        event_id: row.id,
        connection_id: Some(row.connection_id),
    });
    if let Err(why) = PAYLOADS.check_value(&payload.unwrap()) {
        panic!("{} {}: {why}", row.message_type, row.metadata);
    }
}

/// What a direct message's row says of the message itself.
fn content(source: &wa::Message) -> Value {
    content_of(&translated(&info(direct()), source))
}

fn content_of(row: &NewMessage) -> Value {
    check(row);
    let mut shown = shown(row);
    let of_stanza = ["event", "message_id", "chat", "from", "to"];
    let fields = shown.as_object_mut().unwrap();
    fields.retain(|name, _| !of_stanza.contains(&name.as_str()));
    if row.event_type != EventType::Message {
        fields.insert("event".to_owned(), row.event_type.as_str().into());
    }
    let of_stanza = [
        "chat",
        "chat_kind",
        "group",
        "push_name",
        "sender_lid",
        "sender_pn",
        "v",
    ];
    let metadata = fields["metadata"].as_object_mut().unwrap();
    metadata.retain(|name, _| !of_stanza.contains(&name.as_str()));
    shown
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn key(id: &str, from_me: bool) -> MessageField<wa::MessageKey> {
    MessageField::some(wa::MessageKey {
        id: some(id),
        from_me: Some(from_me),
        remote_jid: some("5511888888888@s.whatsapp.net"),
        ..Default::default()
    })
}

fn says(text: &str) -> wa::Message {
    wa::Message {
        conversation: Some(text.to_owned()),
        ..Default::default()
    }
}

fn shown(row: &NewMessage) -> Value {
    serde_json::json!({
        "event": row.event_type.as_str(), "message_id": row.message_id, "chat": row.chat,
        "from": row.from, "to": row.to, "type": row.message_type, "content": row.content,
        "metadata": serde_json::from_str::<Value>(&row.metadata).unwrap(),
    })
}

#[test]
fn a_direct_text() {
    insta::assert_json_snapshot!(shown(&translated(&info(direct()), &says("Olá!"))), @r#"
    {
      "chat": "5511999999999@s.whatsapp.net",
      "content": "Olá!",
      "event": "message",
      "from": "5511999999999",
      "message_id": "3EB0C0FFEE",
      "metadata": {
        "chat": "5511999999999@s.whatsapp.net",
        "chat_kind": "direct",
        "push_name": "Ana",
        "sender_lid": "100000012345678@lid",
        "sender_pn": "5511999999999",
        "v": 1
      },
      "to": "5511888888888",
      "type": "text"
    }
    "#);
}

#[test]
fn a_group_text_has_the_member_in_from_and_the_group_in_chat() {
    insta::assert_json_snapshot!(shown(&translated(&info(family()), &says("Oi, gente"))), @r#"
    {
      "chat": "120363021033254949@g.us",
      "content": "Oi, gente",
      "event": "message",
      "from": "5511999999999",
      "message_id": "3EB0C0FFEE",
      "metadata": {
        "chat": "120363021033254949@g.us",
        "chat_kind": "group",
        "group": true,
        "push_name": "Ana",
        "sender_lid": "100000012345678@lid",
        "sender_pn": "5511999999999",
        "v": 1
      },
      "to": "5511888888888",
      "type": "text"
    }
    "#);
}

#[test]
fn a_sender_of_whom_only_a_lid_is_known_is_no_phone_number() {
    let source = MessageSource {
        chat: jid("100000012345678@lid"),
        sender: jid("100000012345678:1@lid"),
        ..Default::default()
    };
    let row = translated(&info(source), &says("hi"));
    assert_eq!(row.from, "100000012345678@lid");
    assert!(!row.metadata.contains("sender_pn"));
}

#[test]
fn what_the_account_itself_wrote_is_sent_and_never_received() {
    let source = MessageSource {
        chat: jid("5511999999999@s.whatsapp.net"),
        sender: jid("5511888888888@s.whatsapp.net"),
        recipient: Some(jid("5511999999999@s.whatsapp.net")),
        is_from_me: true,
        ..Default::default()
    };
    let row = translated(&info(source), &says("from my phone"));
    assert_eq!(row.event_type, EventType::MessageSent);
    assert_eq!([row.from, row.to], ["5511888888888", "5511999999999"]);
}

#[test]
fn text_is_found_in_its_wrappers() {
    let extended = holds!(extended_text_message: wa::message::ExtendedTextMessage {
        text: some("inside"),
        ..Default::default()
    });
    let message = wraps!(ephemeral_message: wraps!(view_once_message_v2: extended));
    let row = translated(&info(direct()), &message);
    assert_eq!([row.message_type, row.content], ["text", "inside"]);
    assert_eq!(row.raw, None);
}

#[test]
fn the_id_is_that_of_the_stanza_whatever_was_learnt_in_between() {
    let first = translated(&info(direct()), &says("hi"));
    let mut again = info(MessageSource {
        sender: jid("5511999999999:5@s.whatsapp.net"),
        sender_alt: None,
        ..direct()
    });
    again.push_name = "Ana Maria".to_owned();
    again.is_offline = true;
    assert_eq!(translated(&again, &says("hi")).id, first.id);

    let elsewhere = info(MessageSource {
        chat: jid("120363021033254949@g.us"),
        ..direct()
    });
    assert_ne!(translated(&elsewhere, &says("hi")).id, first.id);
    let nobody = undecryptable(
        &owner(),
        &info(direct()),
        Undecryptable::Decryption,
        &Numbers::default(),
    );
    check(&nobody);
    assert_ne!(nobody.id, first.id);
    assert_eq!(nobody.event_type, EventType::MessageUndecryptable);
    assert!(nobody.metadata.contains(r#""reason":"decryption_failed""#));
}

#[test]
fn a_lost_body_is_told_once_a_day_however_often_it_is_asked_for() {
    let at = |seconds: i64| DateTime::from_timestamp(1_764_000_000 + seconds, 0).unwrap();
    let lost = |seconds: i64| {
        let (chat, sender) = ("120363021033254949@g.us", "100000012345678:4@lid");
        lost(&owner(), chat, sender, "3EB0", at(seconds))
    };
    check(&lost(0));
    assert_eq!(lost(0).id, lost(60).id);
    assert_eq!(lost(60).from, "100000012345678@lid");
    assert_eq!(lost(60).timestamp, at(60));
    assert!(lost(0).metadata.contains(r#""reason":"body_lost""#));
}

#[test]
fn what_devices_of_the_account_tell_each_other_is_internal() {
    let mut peer = info(direct());
    peer.category = MessageCategory::Peer;
    assert!(is_internal(&peer, &says("anything")));

    let keys = wa::Message {
        protocol_message: MessageField::some(wa::message::ProtocolMessage {
            app_state_sync_key_share: MessageField::some(Default::default()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut own = info(direct());
    own.source.is_from_me = true;
    assert!(is_internal(&own, &keys));
    assert!(
        !is_internal(&info(direct()), &keys),
        "a stranger's keys are a message like any other"
    );
    assert!(!is_internal(&own, &says("a note")));
}

#[test]
fn a_refused_row_keeps_its_id_and_its_protobuf_and_becomes_storable() {
    let mut stanza = info(direct());
    stanza.id = format!("A\0B{}", "x".repeat(600));
    let source = says("a\0b");
    let refused = translated(&stanza, &source);
    assert!(refused.poison().is_some());
    let kept = unsupported(&refused, Some(&source), "a text holds a NUL character");
    assert_eq!(kept.poison(), None);
    check(&kept);
    assert_eq!(kept.id, refused.id);
    assert_eq!(
        [kept.message_type.as_str(), kept.content.as_str()],
        ["unsupported", ""]
    );
    let raw = wa::Message::decode_from_slice(kept.raw.as_deref().unwrap()).unwrap();
    assert_eq!(raw.conversation.as_deref(), Some("a\0b"));
}
