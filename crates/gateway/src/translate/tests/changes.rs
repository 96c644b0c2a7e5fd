//! Reactions, edits, revokes.

use whatsapp_rust::types::message::EditAttribute;
use whatsapp_rust::waproto::whatsapp::message as proto;
use whatsapp_rust::waproto::whatsapp::message::protocol_message::Type;

use super::*;

/// A message of the account, named by whom it wrote to.
fn of_account() -> MessageField<wa::MessageKey> {
    MessageField::some(wa::MessageKey {
        id: some("TARGET"),
        from_me: Some(false),
        remote_jid: some("5511888888888@s.whatsapp.net"),
        ..Default::default()
    })
}

fn own() -> MessageField<wa::MessageKey> {
    MessageField::some(wa::MessageKey {
        from_me: Some(true),
        ..of_account().unwrap()
    })
}

fn reaction(emoji: &str) -> wa::Message {
    let reaction = proto::ReactionMessage {
        key: of_account(),
        text: some(emoji),
        sender_timestamp_ms: Some(1_764_000_000_500),
        ..Default::default()
    };
    holds!(reaction_message: reaction)
}

fn protocol(
    kind: Type,
    key: MessageField<wa::MessageKey>,
    new: Option<wa::Message>,
) -> wa::Message {
    let protocol = proto::ProtocolMessage {
        key,
        r#type: Some(kind),
        edited_message: new.map(MessageField::some).unwrap_or_default(),
        timestamp_ms: Some(1_764_000_000_500),
        ..Default::default()
    };
    holds!(protocol_message: protocol)
}

fn sent() -> MessageInfo {
    info(MessageSource {
        sender: jid("5511888888888@s.whatsapp.net"),
        recipient: Some(jid("5511999999999@s.whatsapp.net")),
        sender_alt: None,
        is_from_me: true,
        ..direct()
    })
}

#[test]
fn a_reaction_and_one_that_is_taken_back() {
    insta::assert_json_snapshot!([content(&reaction("👍")), content(&reaction(""))], @r#"
    [
      {
        "content": "👍",
        "event": "message.reaction",
        "metadata": {
          "reaction": {
            "message_id": "TARGET",
            "participant": "5511888888888",
            "reacted_at": "2025-11-24T16:00:00.500Z",
            "removed": false
          }
        },
        "type": "reaction"
      },
      {
        "content": "",
        "event": "message.reaction",
        "metadata": {
          "reaction": {
            "message_id": "TARGET",
            "participant": "5511888888888",
            "reacted_at": "2025-11-24T16:00:00.500Z",
            "removed": true
          }
        },
        "type": "reaction"
      }
    ]
    "#);
}

#[test]
fn an_encrypted_reaction_says_that_it_is_and_to_what_it_is() {
    let sealed = proto::EncReactionMessage {
        target_message_key: of_account(),
        enc_payload: Some(vec![1; 40]),
        enc_iv: Some(vec![2; 12]),
    };
    let message = holds!(enc_reaction_message: sealed);
    insta::assert_json_snapshot!(content(&message), @r#"
    {
      "content": "",
      "event": "message.reaction",
      "metadata": {
        "reaction": {
          "encrypted": true,
          "message_id": "TARGET",
          "participant": "5511888888888"
        }
      },
      "type": "reaction"
    }
    "#);
    assert!(translated(&info(direct()), &message).raw.is_some());
}

#[test]
fn an_edit_shows_the_new_form_with_all_that_belongs_to_it() {
    let new = holds!(extended_text_message: proto::ExtendedTextMessage {
        text: some("at 9, @5511888888888"),
        context_info: MessageField::some(wa::ContextInfo {
            mentioned_jid: vec!["5511888888888@s.whatsapp.net".to_owned()],
            ..Default::default()
        }),
        ..Default::default()
    });
    let bare = protocol(Type::MESSAGE_EDIT, own(), Some(new));
    let packed = wraps!(edited_message: bare.clone());
    assert_eq!(content(&packed), content(&bare));
    insta::assert_json_snapshot!(content(&bare), @r#"
    {
      "content": "at 9, @5511888888888",
      "event": "message.edited",
      "metadata": {
        "edit": {
          "edited_at": "2025-11-24T16:00:00.500Z",
          "message_id": "TARGET",
          "participant": "5511999999999",
          "type": "text"
        },
        "mentions": [
          "5511888888888"
        ]
      },
      "type": "edited"
    }
    "#);
}

#[test]
fn an_edited_caption_is_an_edit_of_an_image() {
    let new = holds!(image_message: proto::ImageMessage {
        caption: some("a better caption"),
        ..Default::default()
    });
    let shown = content(&protocol(Type::MESSAGE_EDIT, own(), Some(new)));
    assert_eq!(shown["content"], "a better caption");
    assert_eq!(shown["metadata"]["edit"]["type"], "image");
    assert_eq!(shown["metadata"]["media"]["kind"], "image");
}

#[test]
fn an_edit_that_is_not_understood_or_sealed_is_still_an_edit() {
    let odd = protocol(Type::MESSAGE_EDIT, own(), Some(wa::Message::default()));
    let sealed = proto::SecretEncryptedMessage {
        target_message_key: own(),
        secret_enc_type: Some(proto::secret_encrypted_message::SecretEncType::MESSAGE_EDIT),
        ..Default::default()
    };
    let sealed = holds!(secret_encrypted_message: sealed);
    let unnamed = wraps!(edited_message: says("new"));
    insta::assert_json_snapshot!([content(&odd), content(&sealed), content(&unnamed)], @r#"
    [
      {
        "content": "",
        "event": "message.edited",
        "metadata": {
          "edit": {
            "edited_at": "2025-11-24T16:00:00.500Z",
            "message_id": "TARGET",
            "participant": "5511999999999",
            "type": "unsupported"
          }
        },
        "type": "edited"
      },
      {
        "content": "",
        "event": "message.edited",
        "metadata": {
          "edit": {
            "encrypted": true,
            "message_id": "TARGET",
            "participant": "5511999999999"
          }
        },
        "type": "edited"
      },
      {
        "content": "new",
        "event": "message.edited",
        "metadata": {
          "edit": {
            "type": "text"
          }
        },
        "type": "edited"
      }
    ]
    "#);
    assert!(translated(&info(direct()), &odd).raw.is_some());
}

#[test]
fn a_revoke_by_the_author_and_one_by_an_admin() {
    let by_author = content(&protocol(Type::REVOKE, own(), None));
    let others = wa::MessageKey {
        participant: some("200000000000001@lid"),
        remote_jid: some("120363021033254949@g.us"),
        ..of_account().unwrap()
    };
    let mut stanza = info(family());
    stanza.edit = EditAttribute::AdminRevoke;
    let revoke = protocol(Type::REVOKE, MessageField::some(others), None);
    let by_admin = content_of(&translated(&stanza, &revoke));
    insta::assert_json_snapshot!([by_author, by_admin], @r#"
    [
      {
        "content": "",
        "event": "message.revoked",
        "metadata": {
          "revoke": {
            "message_id": "TARGET",
            "participant": "5511999999999"
          }
        },
        "type": "revoked"
      },
      {
        "content": "",
        "event": "message.revoked",
        "metadata": {
          "revoke": {
            "by_admin": true,
            "message_id": "TARGET",
            "participant": "200000000000001@lid"
          }
        },
        "type": "revoked"
      }
    ]
    "#);
}

#[test]
fn what_the_account_itself_changes_is_sent_and_says_what_it_is() {
    let all = [
        reaction("👍"),
        protocol(Type::MESSAGE_EDIT, own(), Some(says("new"))),
        protocol(Type::REVOKE, own(), None),
    ];
    let rows = all.map(|message| translated(&sent(), &message));
    assert!(
        rows.iter()
            .all(|row| row.event_type == EventType::MessageSent)
    );
    let types = rows.map(|row| row.message_type);
    assert_eq!(types, ["reaction", "edited", "revoked"]);
    let reacted = content_of(&translated(&sent(), &reaction("👍")));
    assert_eq!(
        reacted["metadata"]["reaction"]["participant"], "5511999999999",
        "a message of the contact"
    );
}
