//! What users of other gateways and webhook senders found broken, as far as it can be shown without HTTP.
//! Elsewhere here: a task for a deleted webhook that fails for ever (`claims`, `parking`), a claim that ends
//! before its request (`protocol`), retention that reads everything (`cost`, `partitions`), a bad row that
//! takes its batch along (`inbox`).

use diesel_async::AsyncPgConnection;
use domain::claim::{Claimed, Park, Release, claim, claim_due, release};
use domain::event::{Event, Requeue};
use domain::parking::{Reason, release_parked};
use domain::record::{Outcome, record};
use domain::webhook::Webhook;
use uuid::Uuid;

use crate::world::{self, World, accept, register};

fn dead() -> Outcome {
    Outcome::Dead {
        reason: "the last attempt failed".to_owned(),
        gone: false,
    }
}

/// A deduper that goes by WhatsApp's id drops real messages: two chats may use the same one.
#[tokio::test]
async fn one_whatsapp_id_in_two_chats_is_two_messages() {
    let world = World::new().await;
    let in_chat = |chat: &str| {
        let mut message = world.message("3EB0");
        chat.clone_into(&mut message.chat);
        message.id = domain::ids::message(domain::ids::MessageKey {
            connection: world.connection.id,
            chat,
            sender: &message.from,
            message_id: "3EB0",
            timestamp: message.timestamp,
        });
        message
    };
    let batch = [
        in_chat("one@g.us"),
        in_chat("other@g.us"),
        in_chat("one@g.us"),
    ];
    let accepted = accept(&mut world.conn().await, &batch).await;
    assert_eq!((accepted.messages, accepted.events.len()), (2, 2));
}

async fn only_event(conn: &mut AsyncPgConnection, webhook: &Webhook) -> Event {
    let mut events = world::newest(conn, webhook, 2, 0).await;
    assert_eq!(events.len(), 1);
    events.remove(0)
}

/// One webhook's failure sends to all of them again, and their retries overwrite one another.
#[tokio::test]
async fn each_webhook_of_a_fan_out_is_tried_again_for_itself() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let mut others = Vec::new();
    for number in ["4915100000001", "4915100000002", "4915100000003"] {
        others.push(register(&mut conn, world.client.id, number, &["webhook.*"]).await);
    }
    world.open_circuit().await;
    world.all_due().await;
    let token = Uuid::new_v4();
    let told = claim_due(&mut conn, 10, token, 60.0).await.unwrap();
    assert_eq!(told.len(), 3);
    let end = |claimed: &Claimed| {
        let place = others
            .iter()
            .position(|other| other.id == claimed.webhook_id);
        let outcome = match place.unwrap() {
            0 => Outcome::Delivered,
            1 => Outcome::RetryIn(0.0),
            _ => dead(),
        };
        world::record(claimed, token, outcome)
    };
    let ended: Vec<_> = told.iter().map(end).collect();
    record(&mut conn, &ended).await.unwrap();

    let again = claim_due(&mut conn, 10, token, 60.0).await.unwrap();
    assert_eq!(
        again.iter().map(|c| c.webhook_id).collect::<Vec<_>>(),
        [others[1].id]
    );
    let mut found = Vec::new();
    for other in &others {
        let event = only_event(&mut conn, other).await;
        found.push((event.status, event.attempt_count));
    }
    let expected = [("delivered", 1), ("pending", 1), ("failed", 1)];
    assert_eq!(
        found,
        expected.map(|(status, attempts)| (status.to_owned(), attempts))
    );
}

/// A manual retry that is silently skipped, because of the state that the event is in.
#[tokio::test]
async fn a_manual_retry_sends_whatever_became_of_the_event() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (client, token) = (world.client.id, Uuid::new_v4());
    let mut ids = Vec::new();
    for outcome in [Outcome::Delivered, Outcome::RetryIn(300.0), dead()] {
        ids.extend(world.attempt(&[&format!("{outcome:?}")], outcome).await);
    }
    ids.push(world.claimed("under way", token).await.id);
    let claimed = world.claimed("parked", token).await;
    let park = Release {
        event_id: claimed.id,
        webhook_id: claimed.webhook_id,
        token,
        delay_seconds: 60.0,
        park: Some(Park {
            reason: Reason::Backlog,
            step: 1,
        }),
    };
    release_parked(&mut conn, 10).await.unwrap();
    release(&mut conn, &[park]).await.unwrap();
    ids.push(claimed.id);
    for id in &ids {
        let requeued = Event::requeue(&mut conn, client, *id).await.unwrap();
        assert_eq!(requeued, Requeue::Requeued);
    }
    let sent = claim(&mut conn, &ids, Uuid::new_v4(), 60.0).await.unwrap();
    assert_eq!(sent.len(), ids.len());
    assert!(sent.iter().all(|claimed| claimed.attempt_count == 0));
}

/// A slow or dead receiver stalls the others: its events stand before theirs in the queue.
#[tokio::test]
async fn events_of_a_dead_receiver_stand_in_nobodys_way() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let number = "4915100000001";
    let connection = world::connect(&mut conn, world.client.id, number).await;
    let healthy = register(&mut conn, world.client.id, number, &["message"]).await;
    world.open_circuit().await;
    let names: Vec<String> = (0..50).map(|n| format!("M{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.accept(&names).await;
    world.all_due().await;
    accept(&mut conn, &[world::message(&connection, "A")]).await;
    world.all_due().await;
    // With room for ten at a time, as long as nothing is claimed.
    let claimed = testkit::eventually(std::time::Duration::from_secs(10), async || {
        let claimed = claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
            .await
            .unwrap();
        domain::parking::set_aside(&mut conn, 10).await.unwrap();
        claimed.into_iter().next()
    })
    .await;
    assert_eq!(claimed.webhook_id, healthy.id);
}
