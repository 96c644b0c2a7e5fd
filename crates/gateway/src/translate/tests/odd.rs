//! What strangers may send.

use whatsapp_rust::waproto::whatsapp::message as proto;

use super::*;

/// Deeper ones are not decoded.
const DEEPEST: usize = 90;

#[test]
fn what_is_not_understood_is_kept_raw_and_without_its_sender_key() {
    let call = proto::CallLogMessage::default();
    let mut other = holds!(call_log_messsage: call);
    let bytes = other.encode_to_vec();
    other.sender_key_distribution_message =
        MessageField::some(proto::SenderKeyDistributionMessage {
            group_id: some("120363021033254949@g.us"),
            ..Default::default()
        });
    let row = translated(&info(direct()), &other);
    assert_eq!(row.raw, Some(bytes));
    insta::assert_json_snapshot!(content_of(&row), @r#"
        {
          "content": "",
          "metadata": {
            "kind": "call_log_messsage"
          },
          "type": "unsupported"
        }
        "#);

    let unknown = content(&wa::Message::default());
    assert_eq!(unknown["type"], "unsupported");
    assert_eq!(unknown["metadata"], serde_json::json!({}));
}

#[test]
fn a_protocol_message_that_is_not_understood_says_of_which_type_it_is() {
    let protocol = proto::ProtocolMessage {
        r#type: Some(proto::protocol_message::Type::SHARE_PHONE_NUMBER),
        ..Default::default()
    };
    let message = holds!(protocol_message: protocol);
    assert_eq!(
        content(&message)["metadata"]["kind"],
        "protocol_message.share_phone_number"
    );
}

#[test]
fn wrappers_in_wrappers_end_somewhere() {
    let deep = |levels: usize| {
        (0..levels).fold(says("inside"), |inner, _| wraps!(ephemeral_message: inner))
    };
    assert_eq!(content(&deep(16))["content"], "inside");
    let too_deep = content(&deep(DEEPEST));
    assert_eq!(too_deep["type"], "unsupported");
    assert_eq!(too_deep["metadata"]["kind"], "ephemeral_message");
}

#[test]
fn an_edit_of_an_edit_of_an_edit_ends_somewhere() {
    let edits = (0..DEEPEST).fold(says("inside"), |new, _| {
        let protocol = proto::ProtocolMessage {
            r#type: Some(proto::protocol_message::Type::MESSAGE_EDIT),
            edited_message: MessageField::some(new),
            ..Default::default()
        };
        holds!(protocol_message: protocol)
    });
    let shown = content(&edits);
    assert_eq!(shown["type"], "edited");
    assert_eq!(shown["metadata"]["edit"]["type"], "unsupported");
}

#[test]
fn quotes_of_quotes_are_not_followed() {
    let quoting = (0..DEEPEST).fold(says("first"), |quoted, _| {
        let text = proto::ExtendedTextMessage {
            text: some("more"),
            context_info: MessageField::some(wa::ContextInfo {
                stanza_id: some("QUOTED"),
                quoted_message: MessageField::some(quoted),
                ..Default::default()
            }),
            ..Default::default()
        };
        holds!(extended_text_message: text)
    });
    insta::assert_json_snapshot!(content(&quoting), @r#"
        {
          "content": "more",
          "metadata": {
            "quoted": {
              "message_id": "QUOTED",
              "text": "more",
              "type": "text"
            }
          },
          "type": "text"
        }
        "#);
}

#[test]
fn huge_things_are_cut_in_the_metadata_and_never_in_the_content() {
    let text = proto::ExtendedTextMessage {
        text: Some("x".repeat(4 << 20)),
        title: Some("t".repeat(4 << 20)),
        matched_text: some("https://example.com"),
        context_info: MessageField::some(wa::ContextInfo {
            stanza_id: some("QUOTED"),
            quoted_message: MessageField::some(says(&"q".repeat(4 << 20))),
            mentioned_jid: vec!["5511999999999@s.whatsapp.net".to_owned(); 100_000],
            ..Default::default()
        }),
        ..Default::default()
    };
    let message = holds!(extended_text_message: text);
    let mut stanza = info(direct());
    stanza.push_name = "n".repeat(1 << 20);
    let row = translated(&stanza, &message);
    assert_eq!(row.content.len(), 4 << 20);
    assert!(row.metadata.len() < 64 << 10, "{}", row.metadata.len());
    let metadata: Value = serde_json::from_str(&row.metadata).unwrap();
    assert_eq!(
        metadata["cut"],
        serde_json::json!(["link.title", "mentions", "push_name", "quoted.text"])
    );
}

#[test]
fn a_nul_beside_the_content_is_no_reason_to_lose_the_content() {
    let text = proto::ExtendedTextMessage {
        text: some("fine"),
        context_info: MessageField::some(wa::ContextInfo {
            stanza_id: some("A\0B"),
            ..Default::default()
        }),
        ..Default::default()
    };
    let row = translated(&info(direct()), &holds!(extended_text_message: text));
    assert_eq!(row.poison(), None);
    assert!(!row.metadata.contains("\\u0000"));
    assert_eq!(content_of(&row)["content"], "fine");
}

/// A field of a protobuf that holds these bytes.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for mut value in [number << 3 | 2, content.len() as u32] {
        while value >= 0x80 {
            bytes.push((value & 0x7f | 0x80) as u8);
            value >>= 7;
        }
        bytes.push(value as u8);
    }
    bytes.extend(content);
    bytes
}

#[test]
fn whatever_is_set_in_a_message_its_row_is_storable_and_as_published() {
    let stanza = info(family());
    for number in 1..130 {
        let contents = (1..30).flat_map(|inner| {
            let text = "x\0@\u{fffd}5511999999999@lid".as_bytes();
            [
                field(inner, b""),
                field(inner, text),
                field(inner, &[0xff; 32]),
            ]
        });
        for content in contents.chain([Vec::new(), b"text".to_vec()]) {
            let Ok(message) = wa::Message::decode_from_slice(&field(number, &content)) else {
                continue;
            };
            let row = translated(&stanza, &message);
            assert_ne!(row.message_type, "");
            assert!(row.raw.is_some() || row.message_type != "unsupported");
            if let Some(reason) = row.poison() {
                check(&unsupported(&row, Some(&message), reason));
            }
        }
    }
}
