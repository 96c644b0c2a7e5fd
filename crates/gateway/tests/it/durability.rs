//! Commit before acknowledgement, whatever is away meanwhile, and whatever PostgreSQL thinks of a row.

use std::collections::HashSet;

use diesel_async::SimpleAsyncConnection;
use serde_json::{Value, json};
use testkit::{Server, Servers, eventually};

use crate::rig::{ANA, LIMIT, NUMBER, Rig, Row, http};

fn distinct(rows: &[Row]) -> HashSet<&str> {
    rows.iter().map(|row| row.message_id.as_str()).collect()
}

fn acked(sent: &[Value]) -> usize {
    let acked = sent.iter().filter(|message| !message["acked_at"].is_null());
    acked.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgresql_is_away_nothing_is_acknowledged_and_nothing_is_lost() {
    let servers = Servers::start().await;
    let rig = Rig::start_on(&servers).await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "before"}))
        .await;
    rig.wait_for_acks(NUMBER).await;

    servers.stop(Server::Postgres).await;
    let report = async || gateway.readiness.report().await;
    eventually(LIMIT, async || report().await.checks["lease"] != "ok").await;
    // More than a session reads while nothing can be committed.
    let big = "x".repeat(60_000);
    let mut texts: Vec<String> = (0..12).map(|turn| format!("{turn} {big}")).collect();
    texts.extend((12..20).map(|turn| turn.to_string()));
    for text in &texts {
        rig.send(json!({"to": NUMBER, "from": ANA, "text": text}))
            .await;
    }
    eventually(LIMIT, async || {
        let sent = rig.sent(NUMBER).await;
        sent.iter().all(|message| message["deliveries"] == 1)
    })
    .await;
    assert_eq!(acked(&rig.sent(NUMBER).await), 1);

    servers.resume(Server::Postgres).await;
    let rows = rig.wait_for_rows(21).await;
    rig.wait_for_acks(NUMBER).await;
    assert_eq!(rig.rows().await.len(), 21, "each exactly once");
    assert_eq!(distinct(&rows).len(), 21);
    let received: Vec<_> = rows[1..].iter().map(|row| row.content.clone()).collect();
    assert_eq!(received, texts, "in their order");
    eventually(LIMIT, async || report().await.checks["lease"] == "ok").await;
    assert_eq!(
        rig.row(linked.id).await.transition,
        linked.transition,
        "it stayed connected"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_messages_are_committed_and_acknowledged() {
    let servers = Servers::start().await;
    let rig = Rig::start_on(&servers).await;
    let webhook = rig.webhook(&["message"]).await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    servers.stop(Server::Redis).await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "hi", "count": 10}))
        .await;
    rig.wait_for_rows(10).await;
    rig.wait_for_acks(NUMBER).await;
    assert_eq!(
        rig.events(&webhook).await.len(),
        10,
        "the poller finds them"
    );
    let other = rig.link("5511988880002").await;
    assert_eq!(
        other.status, "connected",
        "the rows are looked at without a doorbell"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_come_again_add_nothing() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["message"]).await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    rig.post("/admin/faults", json!({"drop_acks": true}).to_string())
        .await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "direct", "count": 5}))
        .await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "group", "group": "family", "count": 5}))
        .await;
    let first = rig.wait_for_rows(10).await;
    for round in 2..4 {
        rig.post(
            &format!("/admin/accounts/{NUMBER}/disconnect"),
            String::new(),
        )
        .await;
        eventually(LIMIT, async || {
            let sent = rig.sent(NUMBER).await;
            sent.iter()
                .all(|message| message["deliveries"].as_i64() >= Some(round))
        })
        .await;
    }
    assert_eq!(acked(&rig.sent(NUMBER).await), 0);
    rig.post("/admin/faults", json!({"drop_acks": false}).to_string())
        .await;
    rig.post(
        &format!("/admin/accounts/{NUMBER}/disconnect"),
        String::new(),
    )
    .await;
    rig.wait_for_acks(NUMBER).await;
    assert_eq!(rig.rows().await, first);
    assert_eq!(rig.events(&webhook).await.len(), 10);
    gateway.stop().await;
}

/// A message is decrypted, not acknowledged, and gone: what a database that was set back looks like to a ratchet
/// that was not. Returns the message's id.
async fn lose_a_body(rig: &Rig, letter: Value) -> String {
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    rig.post("/admin/faults", json!({"drop_acks": true}).to_string())
        .await;
    let mut ids = rig.send(letter).await;
    rig.wait_for_rows(1).await;
    gateway.stop().await;
    rig.conn()
        .await
        .batch_execute("DELETE FROM whatsapp_messages; DELETE FROM whatsapp_webhook_events")
        .await
        .unwrap();
    rig.post("/admin/faults", json!({"drop_acks": false}).to_string())
        .await;
    ids.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_body_did_not_survive_is_asked_for_once_more() {
    for group in [None, Some("family")] {
        let rig = Rig::start().await;
        let webhook = rig.webhook(&["message.*"]).await;
        let letter = json!({"to": NUMBER, "from": ANA, "text": "back", "group": group});
        let id = lose_a_body(&rig, letter).await;
        let gateway = rig.gateway();
        let rows = rig.wait_for_rows(1).await;
        assert_eq!(rows[0].event_type, "message");
        assert_eq!((&*rows[0].content, &rows[0].message_id), ("back", &id));
        rig.wait_for_acks(NUMBER).await;
        assert_eq!(rig.rows().await.len(), 1);
        assert_eq!(rig.events(&webhook).await.len(), 1);
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_its_sender_has_forgotten_is_told_as_lost_and_not_swallowed() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["message.*"]).await;
    let letter = json!({"to": NUMBER, "from": ANA, "text": "gone"});
    let id = lose_a_body(&rig, letter).await;
    rig.post("/admin/faults", json!({"forgetful": true}).to_string())
        .await;

    let gateway = rig.gateway();
    let rows = rig.wait_for_rows(1).await;
    assert_eq!(rows[0].event_type, "message.undecryptable");
    assert_eq!(rows[0].message_id, id);
    assert_eq!(rows[0].from, ANA);
    assert_eq!(rows[0].metadata["reason"], "body_lost");
    assert_eq!(
        acked(&rig.sent(NUMBER).await),
        0,
        "it might have come after all"
    );
    rig.post(
        &format!("/admin/accounts/{NUMBER}/disconnect"),
        String::new(),
    )
    .await;
    rig.wait_for_acks(NUMBER).await;
    assert_eq!(rig.rows().await.len(), 1);
    assert_eq!(rig.events(&webhook).await.len(), 1);
    gateway.stop().await;
}

/// A crash after the session was made durable and before the group's key was: the message's other copy
/// can't be decrypted.
async fn without_the_groups_key(rig: &Rig) {
    let deleted = "DELETE FROM protocol_sender_keys";
    rig.conn().await.batch_execute(deleted).await.unwrap();
    rig.post("/admin/faults", json!({"drop_acks": false}).to_string())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_read_is_no_news_when_its_message_is_committed() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["message.*"]).await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    rig.post("/admin/faults", json!({"drop_acks": true}).to_string())
        .await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "Oi", "group": "family"}))
        .await;
    rig.wait_for_rows(1).await;
    gateway.stop().await;
    without_the_groups_key(&rig).await;

    let gateway = rig.gateway();
    rig.wait_for_acks(NUMBER).await;
    let rows = rig.rows().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].event_type, "message");
    assert_eq!(rig.events(&webhook).await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_read_brings_the_body_that_was_kept_before_the_crash() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    rig.post("/admin/faults", json!({"drop_acks": true}).to_string())
        .await;
    let statement = async |sql: &str| rig.conn().await.batch_execute(sql).await.unwrap();
    statement("CREATE RULE keep AS ON DELETE TO protocol_pending_inbound DO INSTEAD NOTHING").await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "Oi", "group": "family"}))
        .await;
    rig.wait_for_rows(1).await;
    gateway.stop().await;
    // As if the crash had come before the commit.
    statement("DROP RULE keep ON protocol_pending_inbound; DELETE FROM whatsapp_messages").await;
    without_the_groups_key(&rig).await;

    let gateway = rig.gateway();
    rig.wait_for_rows(1).await;
    rig.wait_for_acks(NUMBER).await;
    let rows = rig.rows().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&*rows[0].event_type, &*rows[0].content), ("message", "Oi"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_groups_message_that_is_damaged_is_told_and_so_is_its_good_copy() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    let mut letter = json!({"to": NUMBER, "from": ANA, "text": "Oi", "group": "family"});
    rig.send(letter.clone()).await;
    rig.wait_for_acks(NUMBER).await;
    eventually(LIMIT, async || rig.count("protocol_sender_keys").await > 0).await;
    letter["corrupt"] = true.into();
    rig.send(letter).await;
    rig.wait_for_acks(NUMBER).await;
    let rows = rig.wait_for_rows(3).await;
    let told = |event_type| {
        rows.iter()
            .filter(|row| row.event_type == event_type)
            .count()
    };
    assert_eq!((told("message"), told("message.undecryptable")), (2, 1));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_key_is_gone_is_read_anew_without_a_word() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    let letter = json!({"to": NUMBER, "from": ANA, "text": "Oi", "group": "family"});
    rig.send(letter.clone()).await;
    rig.wait_for_acks(NUMBER).await;
    gateway.stop().await;
    rig.send(letter.clone()).await;
    without_the_groups_key(&rig).await;

    let gateway = rig.gateway();
    rig.send(letter).await;
    rig.wait_for_acks(NUMBER).await;
    let rows = rig.rows().await;
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(
        rows.iter().all(|row| row.event_type == "message"),
        "{rows:?}"
    );
    gateway.stop().await;
}

/// A row that PostgreSQL refuses is kept in another form, alone.
async fn refused_row_is_kept_raw(refusal: &str) {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    gateway.stop().await;
    rig.conn().await.batch_execute(refusal).await.unwrap();
    for text in ["one", "refuse me", "three"] {
        rig.send(json!({"to": NUMBER, "from": ANA, "text": text, "count": 3}))
            .await;
    }
    let gateway = rig.gateway();
    let rows = rig.wait_for_rows(9).await;
    rig.wait_for_acks(NUMBER).await;
    assert_eq!(distinct(&rows).len(), 9);
    let (refused, others): (Vec<_>, Vec<_>) = rows
        .iter()
        .partition(|row| row.message_type == "unsupported");
    assert_eq!(refused.len(), 3);
    for row in refused {
        assert_eq!(row.content, "");
        assert!(
            row.metadata["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty())
        );
        assert!(String::from_utf8_lossy(row.raw.as_ref().unwrap()).contains("refuse me"));
    }
    assert!(
        others
            .iter()
            .all(|row| ["one", "three"].contains(&row.content.as_str()))
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgresql_refuses_is_kept_raw_and_its_batch_goes_on() {
    refused_row_is_kept_raw("ALTER TABLE whatsapp_messages ADD CHECK (content <> 'refuse me')")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_fails_for_no_clear_reason_is_kept_raw_and_its_batch_goes_on() {
    refused_row_is_kept_raw(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN RAISE EXCEPTION ''not this one''; END';
         CREATE TRIGGER refuse BEFORE INSERT ON whatsapp_messages FOR EACH ROW
             WHEN (new.content = 'refuse me') EXECUTE FUNCTION refuse()",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_every_row_is_refused_the_messages_stay_with_whatsapp() {
    let rig = Rig::start().await;
    let gateway = rig.program().start().await;
    let closed = async || {
        let url = format!("{}/metrics", gateway.url("OPS_PORT"));
        let text = http().get(url).send().await.unwrap().text().await.unwrap();
        text.contains("recado_gateway_valve_closed 1")
    };
    rig.link(NUMBER).await;
    let refusal = "ALTER TABLE whatsapp_messages ADD CONSTRAINT nobody CHECK (false) NOT VALID";
    rig.run_sql(refusal).await;
    let senders: Vec<String> = (0..20)
        .map(|turn| format!("55119111100{turn:02}"))
        .collect();
    rig.send(json!({"to": NUMBER, "from": senders, "text": "hi", "count": 40}))
        .await;
    eventually(LIMIT, async || closed().await).await;
    assert_eq!(acked(&rig.sent(NUMBER).await), 0);

    rig.run_sql("ALTER TABLE whatsapp_messages DROP CONSTRAINT nobody")
        .await;
    rig.wait_for_acks(NUMBER).await;
    eventually(LIMIT, async || !closed().await).await;
    let rows = rig.rows().await;
    assert_eq!(distinct(&rows).len(), 40);
    assert!(rows.iter().all(|row| row.content == "hi"), "as they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_in_every_form_waits_unacknowledged_and_alone() {
    const EVE: &str = "5511933334444";
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    let refusal =
        format!(r#"ALTER TABLE whatsapp_messages ADD CONSTRAINT nobody CHECK ("from" <> '{EVE}')"#);
    rig.conn().await.batch_execute(&refusal).await.unwrap();
    rig.send(json!({"to": NUMBER, "from": EVE, "text": "stuck"}))
        .await;
    let others = rig
        .send(json!({"to": NUMBER, "from": ANA, "text": "free", "count": 5}))
        .await;
    let rows = rig.wait_for_rows(5).await;
    assert_eq!(distinct(&rows), others.iter().map(String::as_str).collect());
    eventually(LIMIT, async || acked(&rig.sent(NUMBER).await) == 5).await;

    let pardon = "ALTER TABLE whatsapp_messages DROP CONSTRAINT nobody";
    rig.conn().await.batch_execute(pardon).await.unwrap();
    rig.wait_for_acks(NUMBER).await;
    let rows = rig.rows().await;
    assert_eq!(rows.len(), 6);
    assert_eq!(
        rows[5].content, "stuck",
        "as it was, when nothing refuses it"
    );
    gateway.stop().await;
}
