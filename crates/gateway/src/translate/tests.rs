use whatsapp_rust::Jid;
use whatsapp_rust::types::message::{AddressingMode, MessageSource};
use whatsapp_rust::waproto::buffa::{Message as _, MessageField};

use super::*;

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
    insta::assert_json_snapshot!(shown(&message(&owner(), &info(direct()), &says("Olá!"))), @r#"
    {
      "chat": "5511999999999@s.whatsapp.net",
      "content": "Olá!",
      "event": "message",
      "from": "5511999999999",
      "message_id": "3EB0C0FFEE",
      "metadata": {
        "chat": "5511999999999@s.whatsapp.net",
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
    let source = MessageSource {
        chat: jid("120363021033254949@g.us"),
        sender: jid("100000012345678:4@lid"),
        sender_alt: Some(jid("5511999999999@s.whatsapp.net")),
        is_group: true,
        addressing_mode: Some(AddressingMode::Lid),
        ..Default::default()
    };
    insta::assert_json_snapshot!(shown(&message(&owner(), &info(source), &says("Oi, gente"))), @r#"
    {
      "chat": "120363021033254949@g.us",
      "content": "Oi, gente",
      "event": "message",
      "from": "5511999999999",
      "message_id": "3EB0C0FFEE",
      "metadata": {
        "chat": "120363021033254949@g.us",
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
    let row = message(&owner(), &info(source), &says("hi"));
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
    let row = message(&owner(), &info(source), &says("from my phone"));
    assert_eq!(row.event_type, EventType::MessageSent);
    assert_eq!([row.from, row.to], ["5511888888888", "5511999999999"]);
}

#[test]
fn text_is_found_in_its_wrappers() {
    let future_proof = |inner: wa::Message| {
        MessageField::some(wa::message::FutureProofMessage {
            message: MessageField::some(inner),
        })
    };
    let extended = wa::Message {
        extended_text_message: MessageField::some(wa::message::ExtendedTextMessage {
            text: Some("inside".to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let wrapped = wa::Message {
        ephemeral_message: future_proof(wa::Message {
            view_once_message_v2: future_proof(extended),
            ..Default::default()
        }),
        ..Default::default()
    };
    let row = message(&owner(), &info(direct()), &wrapped);
    assert_eq!([row.message_type, row.content], ["text", "inside"]);
    assert_eq!(row.raw, None);
}

#[test]
fn what_is_not_understood_is_kept_raw_and_without_its_sender_key() {
    let mut other = wa::Message {
        reaction_message: MessageField::some(wa::message::ReactionMessage {
            text: Some("👍".to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let bytes = other.encode_to_vec();
    other.sender_key_distribution_message =
        MessageField::some(wa::message::SenderKeyDistributionMessage {
            group_id: Some("120363021033254949@g.us".to_owned()),
            ..Default::default()
        });
    let row = message(&owner(), &info(direct()), &other);
    assert_eq!(row.message_type, "unsupported");
    assert_eq!(row.raw, Some(bytes));
    assert!(row.metadata.contains(r#""kind":"reaction_message""#));

    let unknown = message(&owner(), &info(direct()), &wa::Message::default());
    assert_eq!(unknown.message_type, "unsupported");
    assert!(!unknown.metadata.contains("kind"));
}

#[test]
fn the_id_is_that_of_the_stanza_whatever_was_learnt_in_between() {
    let first = message(&owner(), &info(direct()), &says("hi"));
    let mut again = info(MessageSource {
        sender: jid("5511999999999:5@s.whatsapp.net"),
        sender_alt: None,
        ..direct()
    });
    again.push_name = "Ana Maria".to_owned();
    again.is_offline = true;
    assert_eq!(message(&owner(), &again, &says("hi")).id, first.id);

    let elsewhere = info(MessageSource {
        chat: jid("120363021033254949@g.us"),
        ..direct()
    });
    assert_ne!(message(&owner(), &elsewhere, &says("hi")).id, first.id);
    let nobody = undecryptable(&owner(), &info(direct()), Undecryptable::Decryption);
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
    let refused = message(&owner(), &stanza, &source);
    assert!(refused.poison().is_some());
    let kept = unsupported(&refused, Some(&source), "a text holds a NUL character");
    assert_eq!(kept.poison(), None);
    assert_eq!(kept.id, refused.id);
    assert_eq!(
        [kept.message_type.as_str(), kept.content.as_str()],
        ["unsupported", ""]
    );
    let raw = wa::Message::decode_from_slice(kept.raw.as_deref().unwrap()).unwrap();
    assert_eq!(raw.conversation.as_deref(), Some("a\0b"));
}
