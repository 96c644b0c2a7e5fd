use chrono::TimeDelta;
use domain::event_type::EventType;
use domain::ids::{self, MessageKey};
use domain::message::NewMessage;
use uuid::Uuid;

use crate::world::{NUMBER, World, accept, register};

/// What somebody's phone says of a message, so many seconds after it was sent.
fn receipt(world: &World, message_id: &str, by: &str, kind: &str, seconds: i64) -> NewMessage {
    let base = world.message(message_id);
    let timestamp = world.at + TimeDelta::seconds(seconds);
    let key = MessageKey {
        connection: world.connection.id,
        chat: &base.chat,
        sender: by,
        message_id,
        timestamp,
    };
    NewMessage {
        id: ids::receipt(key, kind),
        event_type: EventType::MessageReceipt,
        from: by.to_owned(),
        message_type: "receipt".to_owned(),
        content: kind.to_owned(),
        metadata: format!(r#"{{"v":1,"kind":"{kind}"}}"#),
        timestamp,
        ..base
    }
}

async fn listening() -> World {
    let world = World::new().await;
    let mut conn = world.conn().await;
    register(
        &mut conn,
        world.client.id,
        NUMBER,
        &["message", "message.receipt"],
    )
    .await;
    world
}

/// What is still to be told, in order.
async fn pending(world: &World, ids: &[Uuid]) -> Vec<String> {
    let mut kinds = Vec::new();
    for id in ids {
        let event = world.event(*id).await;
        assert_eq!(event.metadata["kind"], event.content.as_str());
        kinds.push(event.content);
    }
    kinds
}

#[tokio::test]
async fn a_receipt_is_told_and_is_no_message() {
    let world = listening().await;
    let mut conn = world.conn().await;
    let read = receipt(&world, "A", "1", "read", 1);
    let accepted = accept(&mut conn, std::slice::from_ref(&read)).await;
    assert_eq!((accepted.messages, accepted.events.len()), (0, 1));
    assert_eq!(
        world
            .count("SELECT count(*) AS count FROM whatsapp_messages")
            .await,
        0
    );
    let again = accept(&mut conn, &[read]).await;
    assert!(again.events.is_empty(), "told once");
    let mixed = [receipt(&world, "B", "1", "read", 1), world.message("C")];
    let accepted = accept(&mut conn, &mixed).await;
    assert_eq!((accepted.messages, accepted.events.len()), (1, 2));
}

#[tokio::test]
async fn of_receipts_that_wait_the_newest_is_told() {
    let world = listening().await;
    let mut conn = world.conn().await;
    let first = accept(&mut conn, &[receipt(&world, "A", "1", "delivered", 1)]).await;
    let others = [
        receipt(&world, "A", "2", "delivered", 1),
        receipt(&world, "B", "1", "delivered", 1),
    ];
    let others = accept(&mut conn, &others).await;
    assert_eq!(
        others.events.len(),
        2,
        "another person's, another message's"
    );

    let read = accept(&mut conn, &[receipt(&world, "A", "1", "read", 5)]).await;
    assert!(read.events.is_empty());
    assert_eq!(pending(&world, &first.events).await, ["read"]);
    assert_eq!(
        pending(&world, &others.events).await,
        ["delivered", "delivered"]
    );
    // One that was on its way for longer says nothing new.
    let late = accept(&mut conn, &[receipt(&world, "A", "1", "inactive", 3)]).await;
    assert!(late.events.is_empty());
    assert_eq!(pending(&world, &first.events).await, ["read"]);

    let batch = [
        receipt(&world, "C", "1", "delivered", 1),
        receipt(&world, "C", "1", "played", 9),
        receipt(&world, "C", "1", "read", 5),
    ];
    let batch = accept(&mut conn, &batch).await;
    assert_eq!(pending(&world, &batch.events).await, ["played"]);
}

#[tokio::test]
async fn what_is_on_its_way_or_has_been_tried_is_not_changed() {
    let world = listening().await;
    let mut conn = world.conn().await;
    let first = accept(&mut conn, &[receipt(&world, "A", "1", "delivered", 1)]).await;
    world
        .sql("UPDATE whatsapp_webhook_events SET claimed_until = now() + interval '1 minute'")
        .await;
    let read = accept(&mut conn, &[receipt(&world, "A", "1", "read", 5)]).await;
    assert_eq!(read.events.len(), 1);
    assert_eq!(pending(&world, &first.events).await, ["delivered"]);
    world
        .sql("UPDATE whatsapp_webhook_events SET claimed_until = NULL, attempt_count = 1")
        .await;
    let played = accept(&mut conn, &[receipt(&world, "A", "1", "played", 9)]).await;
    assert_eq!(played.events.len(), 1);
    assert_eq!(pending(&world, &read.events).await, ["read"]);
}
