use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::BigInt;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use domain::claim::{Release, claim, claim_due, put_off, release};
use domain::event::{Event, Requeue};
use domain::parking::{release_parked, set_aside};
use domain::partition::maintain;
use domain::record::{Outcome, record};
use domain::schema::{whatsapp_dead_letters as dead_letters, whatsapp_webhook_events as events};
use domain::webhook::{Changes, Webhook};
use uuid::Uuid;

use crate::world::{self, World};

#[tokio::test]
async fn a_ring_claims_a_fresh_event_once() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let ids = world.accept(&["A", "B"]).await;

    let first = claim(&mut conn, &ids, Uuid::new_v4(), 60.0).await.unwrap();
    let replayed = claim(&mut conn, &ids, Uuid::new_v4(), 60.0).await.unwrap();

    assert_eq!(first.len(), 2);
    assert!(replayed.is_empty());
    let body: serde_json::Value = serde_json::from_slice(&first[0].body().unwrap()).unwrap();
    assert_eq!(body["event_id"], first[0].id.to_string());
    assert_eq!(body["metadata"], serde_json::json!({"v": 1}));
}

#[tokio::test]
async fn a_replayed_ring_bypasses_no_backoff() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    record(
        &mut conn,
        &[world::record(&claimed, token, Outcome::RetryIn(300.0))],
    )
    .await
    .unwrap();

    assert!(
        claim(&mut conn, &[claimed.id], Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .is_empty()
    );

    world.make_due(claimed.id).await;
    let again = claim(&mut conn, &[claimed.id], Uuid::new_v4(), 60.0)
        .await
        .unwrap();
    assert_eq!(again[0].attempt_count, 1);
}

#[tokio::test]
async fn the_poller_finds_what_was_never_rung_and_what_a_dead_dispatcher_held() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let never_rung = world.accept(&["A"]).await[0];
    let held = world.claimed("B", Uuid::new_v4()).await.id;
    assert!(
        claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .is_empty()
    );

    world.make_due(never_rung).await;
    world.make_due(held).await;
    let due = claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
        .await
        .unwrap();
    let due: HashSet<Uuid> = due.iter().map(|claimed| claimed.id).collect();
    assert_eq!(due, HashSet::from([never_rung, held]));
}

#[tokio::test]
async fn two_claimers_at_once_share_nothing_and_leave_nothing() {
    let world = World::new().await;
    let names: Vec<String> = (0..300).map(|n| format!("M{n}")).collect();
    let ids = world
        .accept(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let reversed: Vec<Uuid> = ids.iter().rev().copied().collect();
    let (mut one, mut two) = (world.conn().await, world.conn().await);

    let (a, b) = tokio::join!(
        claim(&mut one, &ids, Uuid::new_v4(), 60.0),
        claim(&mut two, &reversed, Uuid::new_v4(), 60.0)
    );
    let (a, b) = (a.unwrap(), b.unwrap());

    let all: HashSet<Uuid> = a.iter().chain(&b).map(|claimed| claimed.id).collect();
    assert_eq!(all.len(), a.len() + b.len());
    assert_eq!(all.len(), ids.len());
}

#[tokio::test]
async fn a_released_claim_is_due_again_and_a_lost_one_is_not_released() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;

    let give_back = |token| Release {
        event_id: claimed.id,
        webhook_id: claimed.webhook_id,
        token,
        delay_seconds: 0.0,
        park: None,
    };
    let stale = release(&mut conn, &[give_back(Uuid::new_v4())])
        .await
        .unwrap();
    assert_eq!(stale, 0);
    assert!(
        claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .is_empty()
    );

    let held = release(&mut conn, &[give_back(token)]).await.unwrap();
    assert_eq!(held, 1);
    assert_eq!(
        claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn events_of_an_inactive_webhook_are_held_and_flow_when_it_is_active_again() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let id = world.accept(&["A"]).await[0];
    let set = |active| Changes {
        is_active: Some(active),
        ..Changes::default()
    };
    Webhook::update(&mut conn, world.client.id, world.webhook.id, &set(false))
        .await
        .unwrap();
    world.make_due(id).await;

    assert!(
        claim(&mut conn, &[id], Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(set_aside(&mut conn, 10).await.unwrap(), 1);
    assert_eq!(set_aside(&mut conn, 10).await.unwrap(), 0);
    let event = world.event(id).await;
    assert_eq!(
        (event.status.as_str(), event.next_retry_at),
        ("pending", None)
    );
    assert_eq!(event.parked.as_deref(), Some("inactive"));
    assert!(
        claim(&mut conn, &[id], Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .is_empty()
    );

    Webhook::update(&mut conn, world.client.id, world.webhook.id, &set(true))
        .await
        .unwrap();
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 1);
    let flowing = claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
        .await
        .unwrap();
    assert_eq!(flowing[0].id, id);
    assert_eq!(world.event(id).await.parked, None);
}

#[tokio::test]
async fn setting_aside_waits_for_no_webhook_that_is_being_written() {
    let world = World::new().await;
    let (mut conn, mut recorder) = (world.conn().await, world.conn().await);
    let id = world.accept(&["A"]).await[0];
    world.make_due(id).await;
    let close = "UPDATE whatsapp_webhooks SET is_active = false";
    recorder.batch_execute(close).await.unwrap();
    let write = "BEGIN; SELECT FROM whatsapp_webhooks FOR NO KEY UPDATE";
    recorder.batch_execute(write).await.unwrap();
    let meanwhile = tokio::time::timeout(Duration::from_secs(20), set_aside(&mut conn, 10)).await;
    assert_eq!(meanwhile.expect("it does not wait").unwrap(), 0);
    recorder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(set_aside(&mut conn, 10).await.unwrap(), 1);
}

#[tokio::test]
async fn a_deleted_webhooks_events_become_dead_letters_and_never_fail_for_ever() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let ids = world.accept(&["A", "B"]).await;
    // B is as if it had been committed by a gateway that had not seen the deletion yet.
    diesel::update(events::table.find(ids[1]))
        .set(events::status.eq("delivered"))
        .execute(&mut conn)
        .await
        .unwrap();
    assert!(
        Webhook::delete(&mut conn, world.client.id, world.webhook.id)
            .await
            .unwrap()
    );
    diesel::update(events::table.find(ids[1]))
        .set(events::status.eq("pending"))
        .execute(&mut conn)
        .await
        .unwrap();
    world.make_due(ids[1]).await;
    assert_eq!(set_aside(&mut conn, 10).await.unwrap(), 1);

    let letters: Vec<(Uuid, String)> = dead_letters::table
        .order(dead_letters::message_id)
        .select((dead_letters::event_id, dead_letters::reason))
        .load(&mut conn)
        .await
        .unwrap();
    let reason = "the webhook was deleted".to_owned();
    assert_eq!(letters, [(ids[0], reason.clone()), (ids[1], reason)]);
    assert_eq!(world.event(ids[1]).await.status, "failed");
}

#[tokio::test]
async fn a_requeued_event_starts_again_and_its_running_attempt_is_superseded() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    record(
        &mut conn,
        &[world::record(
            &claimed,
            token,
            Outcome::Dead {
                reason: "gave up".to_owned(),
                gone: false,
            },
        )],
    )
    .await
    .unwrap();

    let other_client = world.client.id + 1;
    let stranger = Event::requeue(&mut conn, other_client, claimed.id)
        .await
        .unwrap();
    assert_eq!(stranger, Requeue::NotFound);
    let requeued = Event::requeue(&mut conn, world.client.id, claimed.id)
        .await
        .unwrap();
    assert_eq!(requeued, Requeue::Requeued);
    let event = world.event(claimed.id).await;
    assert_eq!((event.status.as_str(), event.attempt_count), ("pending", 0));
    let letters: i64 = dead_letters::table
        .count()
        .get_result(&mut conn)
        .await
        .unwrap();
    assert_eq!(letters, 0);

    let second = Uuid::new_v4();
    assert_eq!(
        claim(&mut conn, &[claimed.id], second, 60.0)
            .await
            .unwrap()
            .len(),
        1
    );
    Event::requeue(&mut conn, world.client.id, claimed.id)
        .await
        .unwrap();
    let late = world::record(&claimed, second, Outcome::Delivered);
    assert_eq!(record(&mut conn, &[late]).await.unwrap().superseded, 1);
    assert_eq!(world.event(claimed.id).await.status, "pending");
}

#[tokio::test]
async fn an_event_without_a_receiver_cannot_be_requeued() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let id = world.accept(&["A"]).await[0];
    Webhook::delete(&mut conn, world.client.id, world.webhook.id)
        .await
        .unwrap();
    let answer = Event::requeue(&mut conn, world.client.id, id)
        .await
        .unwrap();
    assert_eq!(answer, Requeue::NoReceiver);
}

#[tokio::test]
async fn a_rung_event_that_is_due_under_its_claim_is_put_off_until_the_claim_has_run_out() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let id = world.claimed("A", Uuid::new_v4()).await.id;
    let due = "UPDATE whatsapp_webhook_events SET next_retry_at = now() - interval '1 s'";
    conn.batch_execute(due).await.unwrap();

    let ids = [id];
    let rung = claim(&mut conn, &ids, Uuid::new_v4(), 60.0).await.unwrap();
    let polled = claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
        .await
        .unwrap();
    assert!(rung.is_empty() && polled.is_empty());
    assert_eq!(set_aside(&mut conn, 10).await.unwrap(), 0);

    // Most claims are over soon.
    assert_eq!(put_off(&mut conn, 10, 60.0).await.unwrap(), 0);
    world
        .sql("UPDATE whatsapp_webhook_events SET claimed_until = claimed_until - interval '2 s'")
        .await;
    assert_eq!(put_off(&mut conn, 10, 60.0).await.unwrap(), 1);
    assert_eq!(put_off(&mut conn, 10, 60.0).await.unwrap(), 0);
    let deadline: Option<DateTime<Utc>> = events::table
        .find(id)
        .select(events::claimed_until)
        .get_result(&mut conn)
        .await
        .unwrap();
    assert_eq!(world.event(id).await.next_retry_at, deadline);

    world.make_due(id).await;
    let late = claim_due(&mut conn, 10, Uuid::new_v4(), 60.0).await;
    assert_eq!(late.unwrap()[0].id, id);
}

#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = BigInt)]
    rows: i64,
    #[diesel(sql_type = BigInt)]
    beside_indexes: i64,
}

#[tokio::test]
async fn to_claim_what_is_rung_writes_no_index() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    maintain(&mut conn, Utc::now(), None).await.unwrap();
    let names: Vec<String> = (0..100).map(|n| format!("M{n}")).collect();
    let ids = world
        .accept(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await;

    conn.batch_execute("BEGIN").await.unwrap();
    let claimed = claim(&mut conn, &ids, Uuid::new_v4(), 60.0).await.unwrap();
    let written: Written = sql_query(
        "SELECT sum(n_tup_upd)::bigint AS rows, sum(n_tup_hot_upd)::bigint AS beside_indexes
         FROM pg_stat_xact_user_tables WHERE relname LIKE 'whatsapp_webhook_events_%'",
    )
    .get_result(&mut conn)
    .await
    .unwrap();
    conn.batch_execute("COMMIT").await.unwrap();
    assert_eq!(claimed.len(), 100);
    assert_eq!((written.rows, written.beside_indexes), (100, 100));
}
