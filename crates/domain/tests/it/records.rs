use diesel::prelude::*;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use domain::attempt::Attempt;
use domain::claim::claim;
use domain::record::{Outcome, Record, Recorded, record};
use domain::schema::whatsapp_dead_letters as dead_letters;
use domain::webhook::Webhook;
use uuid::Uuid;

use crate::world::{self, World};

fn dead(gone: bool) -> Outcome {
    Outcome::Dead {
        reason: "the last attempt failed".to_owned(),
        gone,
    }
}

async fn webhook(world: &World) -> Webhook {
    Webhook::find(&mut world.conn().await, world.client.id, world.webhook.id)
        .await
        .unwrap()
        .unwrap()
}

async fn attempts(world: &World, event: Uuid) -> Vec<Attempt> {
    Attempt::list(&mut world.conn().await, world.client.id, event)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_delivery_is_recorded_on_the_event_in_the_ledger_and_on_the_webhook() {
    let world = World::new().await;
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    let delivered = world::record(&claimed, token, Outcome::Delivered);
    assert_eq!(
        record(&mut world.conn().await, &[delivered]).await.unwrap(),
        Recorded::default()
    );

    let event = world.event(claimed.id).await;
    assert_eq!(
        (event.status.as_str(), event.attempt_count),
        ("delivered", 1)
    );
    assert_eq!((event.http_status, event.next_retry_at), (Some(200), None));
    assert!(event.delivered_at.is_some());
    let ledger = attempts(&world, claimed.id).await;
    assert_eq!(
        (ledger.len(), ledger[0].attempt, ledger[0].superseded),
        (1, 1, false)
    );
    let webhook = webhook(&world).await;
    assert!(webhook.last_success_at.is_some() && webhook.last_attempt_at.is_some());
    assert_eq!(
        (webhook.status.as_str(), webhook.failure_count),
        ("active", 0)
    );
}

#[tokio::test]
async fn the_last_failure_is_a_dead_letter_with_its_content() {
    let world = World::new().await;
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    record(
        &mut world.conn().await,
        &[world::record(&claimed, token, dead(false))],
    )
    .await
    .unwrap();

    let event = world.event(claimed.id).await;
    assert_eq!(
        (event.status.as_str(), event.next_retry_at),
        ("failed", None)
    );
    let letters: Vec<(Uuid, String, String, i32)> = dead_letters::table
        .select((
            dead_letters::event_id,
            dead_letters::content,
            dead_letters::reason,
            dead_letters::attempt_count,
        ))
        .load(&mut world.conn().await)
        .await
        .unwrap();
    let expected = (
        claimed.id,
        "content of A".to_owned(),
        "the last attempt failed".to_owned(),
        1,
    );
    assert_eq!(letters, [expected]);
}

#[tokio::test]
async fn an_outcome_under_a_lost_claim_is_on_record_and_changes_nothing() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (paused, second) = (Uuid::new_v4(), Uuid::new_v4());
    let claimed = world.claimed("A", paused).await;
    world.make_due(claimed.id).await;
    let again = claim(&mut conn, &[claimed.id], second, 60.0)
        .await
        .unwrap()
        .remove(0);
    record(
        &mut conn,
        &[world::record(&again, second, Outcome::Delivered)],
    )
    .await
    .unwrap();

    let late = world::record(&claimed, paused, Outcome::RetryIn(5.0));
    assert_eq!(record(&mut conn, &[late]).await.unwrap().superseded, 1);

    assert_eq!(world.event(claimed.id).await.status, "delivered");
    let superseded: Vec<bool> = attempts(&world, claimed.id)
        .await
        .iter()
        .map(|a| a.superseded)
        .collect();
    assert_eq!(superseded, [false, true]);
}

#[tokio::test]
async fn five_failures_in_a_row_make_a_webhook_failed_and_one_success_active_again() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let mut batch: Vec<Record> = Vec::new();
    let token = Uuid::new_v4();
    for name in ["A", "B", "C", "D"] {
        let claimed = world.claimed(name, token).await;
        batch.push(world::record(&claimed, token, Outcome::RetryIn(5.0)));
    }
    record(&mut conn, &batch).await.unwrap();
    assert_eq!(webhook(&world).await.failure_count, 4);
    assert_eq!(webhook(&world).await.status, "active");

    let claimed = world.claimed("E", token).await;
    let (good, bad) = (
        world.claimed("F", token).await,
        world.claimed("G", token).await,
    );
    record(&mut conn, &[world::record(&claimed, token, dead(false))])
        .await
        .unwrap();
    let failed = webhook(&world).await;
    assert_eq!(
        (failed.status.as_str(), failed.failure_count),
        ("failed", 5)
    );
    assert_eq!(failed.last_error.as_deref(), Some("answered 500"));
    assert!(failed.is_active);

    let batch = [
        world::record(&good, token, Outcome::Delivered),
        world::record(&bad, token, Outcome::RetryIn(5.0)),
    ];
    record(&mut conn, &batch).await.unwrap();
    let recovered = webhook(&world).await;
    assert_eq!(
        (recovered.status.as_str(), recovered.failure_count),
        ("active", 1)
    );
}

#[tokio::test]
async fn a_receiver_that_is_gone_deactivates_its_webhook() {
    let world = World::new().await;
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    record(
        &mut world.conn().await,
        &[world::record(&claimed, token, dead(true))],
    )
    .await
    .unwrap();
    assert!(!webhook(&world).await.is_active);
}

#[tokio::test]
async fn a_batch_that_is_written_twice_is_written_once() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    let batch = [world::record(&claimed, token, Outcome::RetryIn(5.0))];
    for _ in 0..2 {
        let recorded = record(&mut conn, &batch).await.unwrap();
        assert_eq!(recorded, Recorded::default());
    }
    let ledger = attempts(&world, claimed.id).await;
    assert_eq!((ledger.len(), ledger[0].superseded), (1, false));
    assert_eq!(webhook(&world).await.failure_count, 1);
}

#[tokio::test]
async fn failures_that_another_recorder_counts_at_that_moment_are_not_lost() {
    let world = World::new().await;
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    let (mut conn, mut other) = (world.conn().await, world.conn().await);
    let count = "BEGIN; UPDATE whatsapp_webhooks SET failure_count = 4, last_error = 'other'";
    other.batch_execute(count).await.unwrap();
    let failure = world::record(&claimed, token, Outcome::RetryIn(5.0));
    let recorded = tokio::spawn(async move { record(&mut conn, &[failure]).await });
    world.waiting(1).await;
    other.batch_execute("COMMIT").await.unwrap();
    recorded.await.unwrap().unwrap();

    let webhook = webhook(&world).await;
    let health = (webhook.failure_count, webhook.status.as_str());
    assert_eq!(health, (5, "failed"));
}
