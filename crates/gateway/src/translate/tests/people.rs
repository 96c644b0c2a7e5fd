//! Chats of all kinds, and the names of people.

use whatsapp_rust::waproto::whatsapp::message as proto;

use super::*;

#[test]
fn every_kind_of_chat_is_told() {
    let chats = [
        "5511999999999@s.whatsapp.net",
        "100000012345678@lid",
        "120363021033254949@g.us",
        "status@broadcast",
        "1763899200@broadcast",
        "120363000000000001@newsletter",
    ];
    let kinds = chats.map(|chat| {
        let source = MessageSource {
            chat: jid(chat),
            ..direct()
        };
        let row = translated(&info(source), &says("hi"));
        let metadata: Value = serde_json::from_str(&row.metadata).unwrap();
        metadata["chat_kind"].as_str().unwrap().to_owned()
    });
    assert_eq!(
        kinds,
        [
            "direct",
            "direct",
            "group",
            "status",
            "broadcast",
            "newsletter"
        ]
    );
}

#[test]
fn a_channels_message_has_the_channels_own_number_for_it() {
    let channel = jid("120363000000000001@newsletter");
    let mut stanza = info(MessageSource {
        chat: channel.clone(),
        sender: channel,
        ..Default::default()
    });
    stanza.server_id = 123;
    let row = translated(&stanza, &says("news"));
    assert_eq!(row.from, "120363000000000001@newsletter");
    let metadata: Value = serde_json::from_str(&row.metadata).unwrap();
    assert_eq!(metadata["server_id"], 123);
}

#[test]
fn a_number_that_was_looked_up_names_people_and_changes_no_id() {
    let source = MessageSource {
        sender_alt: None,
        ..family()
    };
    let text = proto::ExtendedTextMessage {
        text: some("@300000000000003 and @400000000000004"),
        context_info: MessageField::some(wa::ContextInfo {
            stanza_id: some("QUOTED"),
            participant: some("400000000000004@lid"),
            mentioned_jid: vec![
                "300000000000003@lid".to_owned(),
                "400000000000004@lid".to_owned(),
            ],
            ..Default::default()
        }),
        ..Default::default()
    };
    let source_message = holds!(extended_text_message: text);
    let stanza = info(source);
    let wanted = wanted(&stanza, &source_message);
    let wanted: Vec<String> = wanted.iter().map(|lid| lid.user.to_string()).collect();
    assert_eq!(
        wanted,
        [
            "100000012345678",
            "400000000000004",
            "300000000000003",
            "400000000000004"
        ]
    );
    let mut numbers = Numbers::default();
    numbers.add(&jid("100000012345678@lid"), "5511999999999");
    numbers.add(&jid("400000000000004@lid"), "5511888888888");
    let row = message(&owner(), &stanza, &source_message, &numbers).row;
    assert_eq!(row.id, translated(&stanza, &source_message).id);
    assert_eq!(row.from, "5511999999999");
    insta::assert_json_snapshot!(content_of(&row), @r#"
    {
      "content": "@300000000000003 and @400000000000004",
      "metadata": {
        "mentions": [
          "300000000000003@lid",
          "5511888888888"
        ],
        "quoted": {
          "message_id": "QUOTED",
          "participant": "5511888888888"
        }
      },
      "type": "text"
    }
    "#);
}

#[test]
fn nothing_is_looked_up_that_the_stanza_says() {
    assert!(wanted(&info(direct()), &says("hi")).is_empty());
    assert!(wanted(&info(family()), &says("hi")).is_empty());
    let own = info(MessageSource {
        chat: jid("100000012345678@lid"),
        sender: jid("5511888888888@s.whatsapp.net"),
        is_from_me: true,
        ..Default::default()
    });
    assert_eq!(wanted(&own, &says("hi")), [jid("100000012345678@lid")]);
}

#[test]
fn the_accounts_number_is_always_written_as_it_was_registered() {
    let owner = Owner {
        phone_number: "5511988887777".to_owned(),
        ..owner()
    };
    let text = proto::ExtendedTextMessage {
        text: some("@551188887777"),
        context_info: MessageField::some(wa::ContextInfo {
            mentioned_jid: vec!["551188887777@s.whatsapp.net".to_owned()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let source = holds!(extended_text_message: text);
    let row = message(&owner, &info(family()), &source, &Numbers::default()).row;
    let metadata: Value = serde_json::from_str(&row.metadata).unwrap();
    assert_eq!(metadata["mentions"], serde_json::json!(["5511988887777"]));
    assert_eq!(row.to, "5511988887777");
}

#[test]
fn to_whom_the_account_wrote_is_known_from_the_stanza_or_a_look_up() {
    let mut own = info(MessageSource {
        chat: jid("100000012345678@lid"),
        sender: jid("5511888888888@s.whatsapp.net"),
        is_from_me: true,
        ..Default::default()
    });
    assert_eq!(translated(&own, &says("hi")).to, "100000012345678@lid");
    let mut numbers = Numbers::default();
    numbers.add(&jid("100000012345678@lid"), "5511999999999");
    assert_eq!(
        message(&owner(), &own, &says("hi"), &numbers).row.to,
        "5511999999999"
    );
    own.peer_recipient_pn = Some(jid("5511777777777@s.whatsapp.net"));
    assert_eq!(
        message(&owner(), &own, &says("hi"), &numbers).row.to,
        "5511777777777"
    );
}
