//! One of every kind of message, from the simulated WhatsApp to the row and its event.

use domain::payload::Payload;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use testkit::Payloads;
use testkit::kinds::{Kind, kinds};

use crate::rig::{ANA, NUMBER, Rig, Row};

async fn send(rig: &Rig, asked: &Value, more: &Value) -> String {
    let mut message = json!({"to": NUMBER, "from": ANA});
    for part in [asked, more] {
        let fields = part.as_object().unwrap().clone();
        message.as_object_mut().unwrap().extend(fields);
    }
    rig.send(message).await.remove(0)
}

/// Whether what is made of the row is as it is published.
fn check_payload(row: &Row, payloads: &Payloads) {
    let payload = Payload {
        client_id: row.client_id,
        message_id: &row.message_id,
        from: &row.from,
        to: &row.to,
        timestamp: row.created_at,
        message_type: &row.message_type,
        content: &row.content,
        metadata: &to_raw_value(&row.metadata).unwrap(),
        event: &row.event_type,
        event_id: row.id,
        connection_id: Some(row.connection_id),
    };
    let checked = payloads.check(&serde_json::to_vec(&payload).unwrap());
    checked.unwrap_or_else(|why| panic!("{row:?}: {why}"));
}

fn check(row: &Row, kind: &Kind) {
    let about = format!("{}: {row:?}", kind.asked);
    assert_eq!(row.message_type, kind.message_type, "{about}");
    assert_eq!(row.content, kind.content, "{about}");
    assert_eq!(row.metadata["v"], 1, "{about}");
    assert_eq!(row.metadata["chat"], row.chat.as_str(), "{about}");
    if let Some(own) = kind.own {
        assert!(!row.metadata[own].is_null(), "{about}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_message_becomes_a_row_and_an_event_of_its_kind() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["message.*"]).await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    let payloads = Payloads::default();
    let mut count = 0;
    for group in [json!({}), json!({"group": "family", "addressing": "lid"})] {
        let target = send(&rig, &json!({"text": "first"}), &group).await;
        let kinds = kinds(&target, NUMBER);
        let mut ids = Vec::new();
        for kind in &kinds {
            ids.push(send(&rig, &kind.asked, &group).await);
        }
        count += kinds.len() + 1;
        let rows = rig.wait_for_rows(count).await;
        for (kind, id) in kinds.iter().zip(ids) {
            let row = rows.iter().find(|row| row.message_id == id).unwrap();
            check(row, kind);
            check_payload(row, &payloads);
            assert_eq!(row.event_type, kind.event, "{row:?}");
            assert_eq!([row.from.as_str(), row.to.as_str()], [ANA, NUMBER]);
            assert_eq!(row.metadata["group"].is_null(), group == json!({}));
            if kind.own == Some("mentions") {
                assert_eq!(row.metadata["mentions"], json!([NUMBER]), "also as a LID");
            }
            if let Some(named) = row.metadata[kind.own.unwrap_or("v")].get("message_id") {
                assert_eq!(named, target.as_str());
            }
        }
    }
    let told = rig.events(&webhook).await;
    assert_eq!(told.len(), count);
    rig.wait_for_acks(NUMBER).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_account_itself_writes_is_sent_and_says_what_it_is() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    let own = json!({"from_me": true});
    let target = send(&rig, &json!({"text": "first"}), &own).await;
    let kinds = kinds(&target, NUMBER);
    let mut ids = Vec::new();
    for kind in &kinds {
        ids.push(send(&rig, &kind.asked, &own).await);
    }
    let rows = rig.wait_for_rows(kinds.len() + 1).await;
    let payloads = Payloads::default();
    for (kind, id) in kinds.iter().zip(ids) {
        let row = rows.iter().find(|row| row.message_id == id).unwrap();
        check(row, kind);
        check_payload(row, &payloads);
        assert_eq!(row.event_type, "message.sent", "{row:?}");
        assert_eq!([row.from.as_str(), row.to.as_str()], [NUMBER, ANA]);
    }
    rig.wait_for_acks(NUMBER).await;
    gateway.stop().await;
}
