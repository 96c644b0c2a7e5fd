//! What becomes of each kind of message.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use testkit::eventually;

use crate::rig::{ANA, LIMIT, NUMBER, Rig};

#[tokio::test(flavor = "multi_thread")]
async fn direct_and_group_texts_become_rows_and_events_in_their_order() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["message"]).await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    let direct = rig
        .send(json!({"to": NUMBER, "from": ANA, "text": "Olá!", "name": "Ana"}))
        .await;
    rig.wait_for_rows(1).await;
    let group = rig
        .send(
            json!({"to": NUMBER, "from": ANA, "text": "Oi, gente", "group": "family", "count": 3}),
        )
        .await;

    let rows = rig.wait_for_rows(4).await;
    let row = &rows[0];
    assert_eq!(row.message_id, direct[0]);
    assert_eq!(
        (row.connection_id, row.client_id),
        (linked.id, rig.client_id)
    );
    assert_eq!([row.from.as_str(), row.to.as_str()], [ANA, NUMBER]);
    assert_eq!(
        [row.message_type.as_str(), row.content.as_str()],
        ["text", "Olá!"]
    );
    assert_eq!(row.event_type, "message");
    assert_eq!(row.metadata["push_name"], "Ana");
    assert_eq!(row.metadata["sender_pn"], ANA);
    assert_eq!(row.metadata["v"], 1);
    let member = &rows[1];
    assert_eq!(member.from, ANA);
    assert!(member.chat.ends_with("@g.us"));
    assert_eq!(member.metadata["chat"], member.chat.as_str());
    assert_eq!(member.metadata["group"], true);

    let told = rig.events(&webhook).await;
    let told: Vec<_> = told.into_iter().map(|event| event.message_id).collect();
    assert_eq!(told, [direct, group].concat());
    rig.wait_for_acks(NUMBER).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_before_it_is_committed() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    rig.send(json!({"to": NUMBER, "from": [ANA, "5511911113333"], "text": "hi", "count": 50}))
        .await;
    let rows = rig.wait_for_rows(50).await;
    for message in rig.wait_for_acks(NUMBER).await {
        let acked: DateTime<Utc> = message["acked_at"].as_str().unwrap().parse().unwrap();
        let row = rows
            .iter()
            .find(|row| message["id"] == row.message_id.as_str());
        // The simulator's times have milliseconds.
        assert!(row.unwrap().created_at.timestamp_millis() <= acked.timestamp_millis());
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_messages_arrive_and_hold_up_nobody() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    let big = "ã".repeat(30_000);
    for message in [
        json!({"text": "before"}),
        json!({"text": "a\u{0}b"}),
        json!({"text": big}),
        json!({"type": "unknown"}),
        json!({"text": "after"}),
    ] {
        let mut message = message;
        message["to"] = NUMBER.into();
        message["from"] = ANA.into();
        rig.send(message).await;
    }
    let rows = rig.wait_for_rows(5).await;
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (row.message_type.as_str(), row.content.len()))
        .collect();
    let expected = [
        ("text", 6),
        ("unsupported", 0),
        ("text", 60_000),
        ("unsupported", 0),
        ("text", 5),
    ];
    assert_eq!(shown, expected);
    assert_eq!(rows[1].metadata["reason"], "a text holds a NUL character");
    assert_eq!(rows[1].metadata["kind"], "conversation");
    assert!(
        rows[1]
            .raw
            .as_ref()
            .unwrap()
            .windows(3)
            .any(|bytes| bytes == b"a\0b")
    );
    rig.wait_for_acks(NUMBER).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_messages_in_an_offline_batch_hold_up_nobody() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    gateway.stop().await;
    for text in ["one", "t\u{0}wo", "three"] {
        rig.send(json!({"to": NUMBER, "from": ANA, "text": text, "count": 5}))
            .await;
    }
    let gateway = rig.gateway();
    let rows = rig.wait_for_rows(15).await;
    let unsupported = rows.iter().filter(|row| row.message_type == "unsupported");
    assert_eq!(unsupported.count(), 5);
    rig.wait_for_acks(NUMBER).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_account_itself_writes_is_sent_and_not_received() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["message.*"]).await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "from my phone", "from_me": true}))
        .await;
    let rows = rig.wait_for_rows(1).await;
    assert_eq!(rows[0].event_type, "message.sent");
    assert_eq!([rows[0].from.as_str(), rows[0].to.as_str()], [NUMBER, ANA]);
    assert_eq!(rows[0].content, "from my phone");
    let events = rig.events(&webhook).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].event_type, "message.sent");
    rig.wait_for_acks(NUMBER).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_named_by_a_lid_alone_is_the_number_that_was_learnt_before_or_the_lid() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    let stranger = "5511911119999";
    for (from, addressing) in [(stranger, "lid_only"), (ANA, "lid"), (ANA, "lid_only")] {
        let message = json!({"to": NUMBER, "from": from, "text": "hi", "addressing": addressing});
        rig.send(message).await;
        rig.wait_for_acks(NUMBER).await;
    }
    let rows = rig.wait_for_rows(3).await;
    assert!(rows[0].from.ends_with("@lid"), "{:?}", rows[0]);
    assert_eq!(rows[0].metadata.get("sender_pn"), None);
    assert_eq!([rows[1].from.as_str(), rows[2].from.as_str()], [ANA, ANA]);
    assert_eq!(rows[2].metadata["sender_pn"], ANA);
    assert_eq!(rows[2].chat, rows[1].chat);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecryptable_stanza_and_its_later_good_copy_are_both_told() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["message.*"]).await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    // A session, so that the next message depends on it.
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "hello"}))
        .await;
    rig.wait_for_rows(1).await;
    let ids = rig
        .send(json!({"to": NUMBER, "from": ANA, "text": "garbled", "corrupt": true}))
        .await;

    let of_message = |events: Vec<crate::rig::EventRow>| -> Vec<(String, Value)> {
        let of_message = events
            .into_iter()
            .filter(|event| event.message_id == ids[0]);
        of_message
            .map(|event| (event.event_type, event.metadata["reason"].clone()))
            .collect()
    };
    eventually(LIMIT, async || {
        let told = of_message(rig.events(&webhook).await);
        let mut types: Vec<&str> = told.iter().map(|(event, _)| event.as_str()).collect();
        // On a busy machine the good copy may be the first to be committed.
        types.sort_unstable();
        match types.as_slice() {
            ["message", "message.undecryptable"] => Ok(()),
            types => Err(format!("{types:?}")),
        }
    })
    .await;
    let rows = rig.rows().await;
    let row = rows.iter().find(|row| row.content == "garbled").unwrap();
    assert_eq!(row.message_id, ids[0]);
    rig.wait_for_acks(NUMBER).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_accounts_devices_tell_each_other_is_never_stored_or_told() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["message.*"]).await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    // The phone shares its app state keys right after it was linked; this comes behind it.
    eventually(LIMIT, async || {
        rig.count("protocol_app_state_keys").await > 0
    })
    .await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "hi"}))
        .await;
    let rows = rig.wait_for_rows(1).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rig.events(&webhook).await.len(), 1);
    gateway.stop().await;
}
