//! What happens besides messages: receipts, calls, changes of groups.

use domain::webhook::Webhook;
use serde_json::json;
use testkit::{Payloads, eventually};

use crate::rig::{ANA, EventRow, LIMIT, NUMBER, Rig};
use crate::sending::{ana, ask, text};

const BOB: &str = "5511933334444";

async fn wait_for(rig: &Rig, webhook: &Webhook, count: usize) -> Vec<EventRow> {
    let events = eventually(LIMIT, async || {
        let events = rig.events(webhook).await;
        match events.len() >= count {
            true => Ok(events),
            false => Err(format!("{events:?}")),
        }
    })
    .await;
    let payloads = Payloads::default();
    for body in rig.bodies(webhook).await {
        let checked = payloads.check_value(&body);
        checked.unwrap_or_else(|why| panic!("{body}: {why}"));
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_sent_message_is_told() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["message.receipt"]).await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    let hello = text("Olá!");
    ask(&rig, &linked, &ana(), "3EB0000000000000000001", &hello).await;
    let told = wait_for(&rig, &webhook, 1).await;
    assert_eq!(told[0].event_type, "message.receipt");
    assert_eq!(told[0].message_id, "3EB0000000000000000001");
    assert_eq!(told[0].metadata["kind"], "delivered");
    assert_eq!(told[0].metadata["chat"], format!("{ANA}@s.whatsapp.net"));

    // It has not gone out yet: what is newer takes its place.
    let read =
        json!({"account": NUMBER, "from": ANA, "ids": ["3EB0000000000000000001"], "kind": "read"});
    rig.post("/admin/receipts", read.to_string()).await;
    eventually(LIMIT, async || {
        let events = rig.events(&webhook).await;
        assert_eq!(events.len(), 1);
        events[0].metadata["kind"] == "read"
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_by_number_is_named_by_it_where_whatsapp_says_a_lid() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["message.receipt"]).await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "Oi", "addressing": "lid"}))
        .await;
    rig.wait_for_acks(NUMBER).await;
    let by_lid = |from: &str, kind: &str| {
        json!({"account": NUMBER, "from": from, "ids": [format!("3EB0{kind}")], "kind": kind,
             "addressing": "lid"})
    };
    for (from, kind) in [(ANA, "read"), (BOB, "delivered"), (ANA, "read_self")] {
        rig.post("/admin/receipts", by_lid(from, kind).to_string())
            .await;
    }
    let events = wait_for(&rig, &webhook, 3).await;
    let mut told: Vec<_> = events
        .iter()
        .map(|event| (event.message_id.as_str(), event.from.as_str()))
        .collect();
    told.sort_unstable();
    assert!(told[0].1.ends_with("@lid"), "nobody knows Bob: {told:?}");
    assert_eq!(told[1..], [("3EB0read", ANA), ("3EB0read_self", NUMBER)]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_told_once_also_when_nobody_was_there() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["call.offer"]).await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    let call = rig
        .post(
            "/admin/calls",
            json!({"to": NUMBER, "from": ANA, "video": true}).to_string(),
        )
        .await;
    let told = wait_for(&rig, &webhook, 1).await;
    assert_eq!(told[0].message_id, call["call_id"].as_str().unwrap());
    assert_eq!(told[0].metadata["video"], true);
    let rows = rig.wait_for_rows(1).await;
    assert_eq!((rows[0].from.as_str(), rows[0].to.as_str()), (ANA, NUMBER));
    assert_eq!(rows[0].message_type, "call");

    gateway.stop().await;
    rig.post(
        "/admin/calls",
        json!({"to": NUMBER, "from": BOB}).to_string(),
    )
    .await;
    let gateway = rig.gateway();
    let told = wait_for(&rig, &webhook, 2).await;
    assert_eq!(told[1].metadata["missed"], true);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_group_are_told_with_who_made_them() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["group.update"]).await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    let group = json!({"subject": "Padaria", "members": [ANA, NUMBER]});
    let group = rig.post("/admin/groups", group.to_string()).await;
    let id = group["group"].as_str().unwrap().to_owned();
    let add = json!({"members": [BOB], "by": ANA});
    rig.post(&format!("/admin/groups/{id}/add"), add.to_string())
        .await;
    let subject = json!({"subject": "Padaria Sol", "by": ANA});
    rig.post(&format!("/admin/groups/{id}/subject"), subject.to_string())
        .await;
    let told = eventually(LIMIT, async || {
        let events = rig.events(&webhook).await;
        let renamed = events
            .iter()
            .any(|event| event.metadata["action"] == "subject");
        match renamed {
            true => Ok(events),
            false => Err(format!("{events:?}")),
        }
    })
    .await;
    let of = |action: &str| {
        let found = told.iter().find(|event| event.metadata["action"] == action);
        found
            .unwrap_or_else(|| panic!("{action} of {told:?}"))
            .metadata
            .clone()
    };
    let added = of("add");
    assert_eq!(
        (&added["participants"], &added["by"]),
        (&json!([BOB]), &json!(ANA))
    );
    assert!(added["chat"].as_str().unwrap().ends_with("@g.us"));
    assert_eq!(of("subject")["subject"], "Padaria Sol");
    gateway.stop().await;
}
