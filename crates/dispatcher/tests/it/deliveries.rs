use std::collections::HashSet;

use chrono::{DateTime, Utc};
use domain::claim::claim;
use domain::webhook::{Changes, Webhook};
use domain::{token, webhook};
use secrecy::ExposeSecret;
use testkit::Answer;
use uuid::Uuid;

use crate::world::{SOON, World, keyring};

#[tokio::test]
async fn a_rung_event_arrives_signed_and_is_on_record() {
    let world = World::new().await;
    let hook = world.hook("/in?token=a%20b").await;
    world
        .receiver
        .answer("/in", Answer::status(201).body("thanks"));
    let running = world.dispatcher().await;

    let id = world.send(&hook, 1).await[0];
    let request = world.receiver.wait_for(1, SOON).await.remove(0);
    world.all(&[id], "delivered").await;

    request.verify(hook.secret()).unwrap();
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("x-webhook-event-id"), Some(&*id.to_string()));
    assert_eq!(request.header("webhook-id"), Some(&*id.to_string()));
    assert_eq!(request.header("x-webhook-attempt"), Some("1"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        request.header("user-agent"),
        Some(&*format!("Recado/{version}"))
    );
    let sent: DateTime<Utc> = request
        .header("x-webhook-timestamp")
        .unwrap()
        .parse()
        .unwrap();
    let unix = request.header("webhook-timestamp").unwrap();
    assert_eq!(sent.timestamp().to_string(), unix);
    assert!((request.arrived - sent).num_milliseconds().abs() < 5_000);

    let body = request.json();
    let event = world.event(id).await;
    assert_eq!(body["client_id"], world.client.id);
    assert_eq!(body["message_id"], event.message_id);
    assert_eq!(body["event_id"], id.to_string());
    assert_eq!(body["event"], "message");
    assert_eq!(body["content"], event.content);

    assert_eq!((event.attempt_count, event.http_status), (1, Some(201)));
    assert_eq!(
        (event.response.as_deref(), event.error),
        (Some("thanks"), None)
    );
    assert!(event.delivered_at.is_some() && event.next_retry_at.is_none());
    let [attempt] = &world.attempts(id).await[..] else {
        panic!("one attempt");
    };
    assert_eq!((attempt.attempt, attempt.http_status), (1, Some(201)));
    assert!(!attempt.superseded && attempt.error_class.is_none());
    assert!(world.webhook(&hook).await.last_success_at.is_some());
    running.stop().await;
}

#[tokio::test]
async fn what_nobody_was_rung_for_is_found_when_it_is_due() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let ids = world.commit(&hook, 30).await;
    world.make_due(&ids).await;
    let running = world.dispatcher().await;
    world.all(&ids, "delivered").await;
    assert_eq!(world.receiver.received().len(), 30);
    running.stop().await;
}

#[tokio::test]
async fn two_dispatchers_share_the_work_and_nothing_is_sent_twice() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let (one, two) = (world.dispatcher().await, world.dispatcher().await);
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.extend(world.send(&hook, 100).await);
    }
    let rest = world.commit(&hook, 500).await;
    world.make_due(&rest).await;
    ids.extend(rest);
    world.all(&ids, "delivered").await;
    let received = world.receiver.received();
    let distinct: HashSet<_> = received
        .iter()
        .map(|request| request.header("webhook-id").unwrap().to_owned())
        .collect();
    assert_eq!((received.len(), distinct.len()), (ids.len(), ids.len()));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn during_a_rotation_both_secrets_verify() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let new = token::new_signing_secret();
    let sealed = webhook::seal_secret(&keyring(), hook.id, &new);
    let mut conn = world.conn().await;
    Webhook::rotate_secret(&mut conn, world.client.id, hook.id, &sealed, 60)
        .await
        .unwrap();
    let running = world.dispatcher().await;
    world.send(&hook, 1).await;
    let request = world.receiver.wait_for(1, SOON).await.remove(0);
    request.verify(hook.secret()).unwrap();
    request.verify(new.expose_secret()).unwrap();
    let signatures = request.header("webhook-signature").unwrap();
    assert_eq!(signatures.split(' ').count(), 2);
    running.stop().await;
}

#[tokio::test]
async fn a_deleted_webhooks_event_becomes_a_dead_letter_and_is_not_sent() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let mut conn = world.conn().await;
    // Held by somebody while the webhook is deleted, so that only its deadline frees it.
    let id = world.commit(&hook, 1).await[0];
    claim(&mut conn, &[id], Uuid::new_v4(), 0.0).await.unwrap();
    Webhook::delete(&mut conn, world.client.id, hook.id)
        .await
        .unwrap();
    let running = world.dispatcher().await;
    world.all(&[id], "failed").await;
    assert_eq!(
        world.dead_letter(id).await.as_deref(),
        Some("the webhook was deleted")
    );
    assert!(world.receiver.received().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn events_wait_while_their_webhook_is_not_active() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let ids = world.commit(&hook, 3).await;
    let active = |active| Changes {
        is_active: Some(active),
        ..Changes::default()
    };
    world.change(&hook, &active(false)).await;
    world.make_due(&ids).await;
    let running = world.dispatcher().await;
    testkit::eventually(SOON, async || world.event(ids[2]).await.parked).await;
    assert!(world.receiver.received().is_empty());
    world.change(&hook, &active(true)).await;
    world.all(&ids, "delivered").await;
    running.stop().await;
}
