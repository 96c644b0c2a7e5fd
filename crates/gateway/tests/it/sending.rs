//! What clients send: from the outbox to the phones of those it is for, once, whatever happens on the way.

use domain::connection::Connection;
use domain::outbox::{Body, Content, NewOutgoing, Outgoing, Target};
use serde_json::{Value, json};
use testkit::eventually;

use crate::rig::{ANA, LIMIT, NUMBER, Rig};

pub(crate) fn text(text: &str) -> Content {
    Content {
        body: Body::Text {
            text: text.to_owned(),
        },
        reply_to: None,
    }
}

pub(crate) async fn ask(
    rig: &Rig,
    from: &Connection,
    to: &str,
    id: &str,
    content: &Content,
) -> Outgoing {
    let new = NewOutgoing {
        client_id: from.client_id,
        connection_id: from.id,
        idempotency_key: None,
        request: b"{}",
        message_id: id,
        to,
        content,
    };
    let mut conn = rig.conn().await;
    Outgoing::insert(&mut conn, &new).await.unwrap()
}

pub(crate) async fn settled(rig: &Rig, asked: &Outgoing) -> Outgoing {
    eventually(LIMIT, async || {
        let mut conn = rig.conn().await;
        let found = Outgoing::find(&mut conn, asked.id).await.unwrap();
        found.filter(Outgoing::is_settled)
    })
    .await
}

/// What arrived at contacts.
pub(crate) async fn arrived(rig: &Rig) -> Vec<Value> {
    let all = rig.get(&format!("/admin/outbox?from={NUMBER}")).await;
    all.as_array().unwrap().clone()
}

pub(crate) fn ana() -> String {
    format!("{ANA}@s.whatsapp.net")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_and_is_told_as_the_accounts_own() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["message", "message.sent"]).await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    let asked = ask(
        &rig,
        &linked,
        &ana(),
        "3EB0000000000000000001",
        &text("Olá!"),
    )
    .await;
    let sent = settled(&rig, &asked).await;
    assert_eq!((sent.status.as_str(), sent.error), ("sent", None));

    let arrived = arrived(&rig).await;
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0]["id"], "3EB0000000000000000001");
    assert_eq!(
        (&arrived[0]["to"], &arrived[0]["text"]),
        (&json!(ANA), &json!("Olá!"))
    );

    let rows = rig.wait_for_rows(1).await;
    assert_eq!(
        (rows[0].event_type.as_str(), rows[0].content.as_str()),
        ("message.sent", "Olá!")
    );
    assert_eq!((rows[0].from.as_str(), rows[0].to.as_str()), (NUMBER, ANA));
    let events = rig.events(&webhook).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].event_type, "message.sent");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_arrives_and_a_reply_names_what_it_answers() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    let ids = rig
        .send(json!({"to": NUMBER, "from": ANA, "text": "Abrem hoje?"}))
        .await;
    rig.wait_for_rows(1).await;
    let (client, to) = (linked.client_id, ana());
    let target = Target::find(&mut rig.conn().await, client, linked.id, &to, &ids[0])
        .await
        .unwrap()
        .unwrap();
    let bodies = [
        Body::Text {
            text: "Sim".to_owned(),
        },
        Body::Location {
            latitude: -23.5,
            longitude: -46.6,
            name: None,
            address: None,
        },
        Body::Contact {
            name: "Loja".to_owned(),
            phone_number: "5511900000000".to_owned(),
        },
        Body::Reaction {
            target: target.clone(),
            emoji: "👍".to_owned(),
        },
    ];
    let mut asked = Vec::new();
    for (body, turn) in bodies.into_iter().zip(0..) {
        let content = Content {
            reply_to: (turn == 0).then(|| target.clone()),
            body,
        };
        let id = format!("3EB000000000000000000{turn}");
        asked.push(ask(&rig, &linked, &ana(), &id, &content).await);
    }
    for asked in &asked {
        assert_eq!(settled(&rig, asked).await.status, "sent");
    }
    let arrived = arrived(&rig).await;
    let order: Vec<_> = arrived
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    let expected: Vec<_> = asked.iter().map(|one| one.message_id.as_str()).collect();
    assert_eq!(order, expected, "in their order");
    let protobuf = arrived[0]["content"].as_str().unwrap();
    assert!(!protobuf.is_empty());
    assert_eq!(rig.wait_for_rows(5).await.len(), 5);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_in_the_middle_sends_again_under_the_same_id() {
    let rig = Rig::start().await;
    let mut gateway = rig.program().start().await;
    let linked = rig.link(NUMBER).await;
    // WhatsApp has it, and the gateway never hears so.
    rig.post("/admin/faults", json!({"lose_acks": true}).to_string())
        .await;
    let asked = ask(
        &rig,
        &linked,
        &ana(),
        "3EB0000000000000000001",
        &text("Olá!"),
    )
    .await;
    eventually(LIMIT, async || arrived(&rig).await.len() == 1).await;
    gateway.kill().await;
    let mut conn = rig.conn().await;
    let row = Outgoing::find(&mut conn, asked.id).await.unwrap().unwrap();
    assert_eq!(row.status, "queued");

    rig.post("/admin/faults", json!({"lose_acks": false}).to_string())
        .await;
    gateway.start_again().await;
    assert_eq!(settled(&rig, &asked).await.status, "sent");
    let ids: Vec<_> = arrived(&rig)
        .await
        .iter()
        .map(|one| one["id"].clone())
        .collect();
    assert!(
        ids.iter().all(|id| id == "3EB0000000000000000001"),
        "{ids:?}"
    );
    let rows = rig.wait_for_rows(1).await;
    assert_eq!(rows.len(), 1, "it is told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_while_nobody_holds_the_session_is_sent_later_and_in_order() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    gateway.stop().await;
    let mut asked = Vec::new();
    for turn in 0..5 {
        let id = format!("3EB000000000000000000{turn}");
        asked.push(ask(&rig, &linked, &ana(), &id, &text(&turn.to_string())).await);
    }
    let gateway = rig.gateway();
    for asked in &asked {
        assert_eq!(settled(&rig, asked).await.status, "sent");
    }
    let texts: Vec<_> = arrived(&rig)
        .await
        .iter()
        .map(|one| one["text"].clone())
        .collect();
    assert_eq!(texts, ["0", "1", "2", "3", "4"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_sent_fails_with_its_reason_and_holds_up_nothing() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    gateway.stop().await;
    let bad = ask(&rig, &linked, &ana(), "3EB0000000000000000001", &text("x")).await;
    // As a newer API may write it.
    rig.run_sql(r#"UPDATE whatsapp_outbox SET content = '{"type": "hologram"}'"#)
        .await;
    let good = ask(&rig, &linked, &ana(), "3EB0000000000000000002", &text("y")).await;
    let gateway = rig.gateway();
    let failed = settled(&rig, &bad).await;
    assert_eq!(failed.status, "failed");
    assert!(failed.error.unwrap().contains("hologram"));
    assert_eq!(settled(&rig, &good).await.status, "sent");
    assert_eq!(rig.wait_for_rows(1).await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_the_account_is_not_in_is_refused_at_once() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    let nowhere = "120363021033254949@g.us";
    let asked = ask(&rig, &linked, nowhere, "3EB0000000000000000001", &text("x")).await;
    let failed = settled(&rig, &asked).await;
    assert_eq!((failed.status.as_str(), failed.attempts), ("failed", 0));
    let error = failed.error.unwrap();
    assert!(
        error.contains("refused") && error.contains("404"),
        "{error}"
    );
    gateway.stop().await;
}
