use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use domain::event_type::EventType;
use domain::failure::{Failure, classify};
use domain::message::{NewMessage, committed_for};
use domain::schema::{whatsapp_messages as messages, whatsapp_webhook_events as events};
use domain::{client::Client, inbox};

use crate::world::{NUMBER, World, accept, connect, message, register};

#[tokio::test]
async fn a_message_becomes_one_event_for_its_webhook_however_often_it_comes() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let batch = [world.message("A")];

    let first = accept(&mut conn, &batch).await;
    let second = accept(&mut conn, &batch).await;

    assert_eq!((first.messages, first.events.len()), (1, 1));
    assert_eq!((second.messages, second.events.len()), (0, 0));
    let chat = &batch[0].chat;
    for (chat, id, is_committed) in [
        (chat.as_str(), "A", true),
        (chat.as_str(), "B", false),
        ("another@g.us", "A", false),
    ] {
        let found = committed_for(&mut conn, world.connection.id, chat, id).await;
        assert_eq!(found.unwrap().is_some(), is_committed, "{chat} {id}");
    }
}

#[tokio::test]
async fn a_message_twice_in_one_batch_is_one_message() {
    let world = World::new().await;
    let accepted = accept(
        &mut world.conn().await,
        &[world.message("A"), world.message("A"), world.message("B")],
    )
    .await;
    assert_eq!((accepted.messages, accepted.events.len()), (2, 2));
}

#[tokio::test]
async fn events_are_numbered_in_the_order_of_the_slice() {
    let world = World::new().await;
    let names: Vec<String> = (0..200).map(|n| format!("M{n}")).collect();
    let ids = world
        .accept(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await;

    let stored: Vec<String> = events::table
        .order(events::sequence)
        .select(events::message_id)
        .load(&mut world.conn().await)
        .await
        .unwrap();
    assert_eq!(stored, names);
    assert_eq!(ids.len(), names.len());
}

#[tokio::test]
async fn the_fan_out_is_what_the_filters_let_through_and_is_on_record() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let sent = NewMessage {
        event_type: EventType::MessageSent,
        ..world.message("SENT")
    };
    let accepted = accept(&mut conn, &[world.message("IN"), sent]).await;
    assert_eq!((accepted.messages, accepted.events.len()), (2, 1));

    let fan_out: Vec<(String, i32)> = messages::table
        .order(messages::message_id)
        .select((messages::message_id, messages::fan_out))
        .load(&mut conn)
        .await
        .unwrap();
    assert_eq!(fan_out, [("IN".to_owned(), 1), ("SENT".to_owned(), 0)]);
}

#[tokio::test]
async fn two_clients_with_the_same_number_each_get_their_own_messages_only() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let other = Client::insert(&mut conn, "other").await.unwrap();
    let others = connect(&mut conn, other.id, NUMBER).await;
    let others_webhook = register(&mut conn, other.id, NUMBER, &["*"]).await;

    accept(&mut conn, &[world.message("A"), message(&others, "A")]).await;

    let receivers: Vec<(i32, uuid::Uuid)> = events::table
        .order(events::client_id)
        .select((events::client_id, events::webhook_id))
        .load(&mut conn)
        .await
        .unwrap();
    assert_eq!(
        receivers,
        [
            (world.client.id, world.webhook.id),
            (other.id, others_webhook.id)
        ]
    );
}

#[tokio::test]
async fn a_webhook_hears_its_number_in_whichever_form_it_was_registered() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let client = Client::insert(&mut conn, "old numbers").await.unwrap();
    let connection = connect(&mut conn, client.id, "5511988887777").await;
    register(&mut conn, client.id, "551188887777", &["message"]).await;
    let accepted = accept(&mut conn, &[message(&connection, "A")]).await;
    assert_eq!(accepted.events.len(), 1);
}

#[tokio::test]
async fn inactive_and_deleted_webhooks_get_nothing() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let off = domain::webhook::Changes {
        is_active: Some(false),
        ..Default::default()
    };
    domain::webhook::Webhook::update(&mut conn, world.client.id, world.webhook.id, &off)
        .await
        .unwrap();
    assert!(world.accept(&["A"]).await.is_empty());
    domain::webhook::Webhook::delete(&mut conn, world.client.id, world.webhook.id)
        .await
        .unwrap();
    assert!(world.accept(&["B"]).await.is_empty());
}

#[tokio::test]
async fn a_poison_row_is_told_beforehand_and_leaves_nothing_of_its_batch_behind() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let good = world.message("GOOD");
    let poison = NewMessage {
        content: "a\0b".to_owned(),
        ..world.message("NUL")
    };
    assert!(good.poison().is_none());
    assert!(poison.poison().unwrap().contains("NUL"));

    let error = inbox::accept(&mut conn, &[&good, &poison])
        .await
        .unwrap_err();
    assert_ne!(classify(&error), Failure::Transient);
    assert!(
        committed_for(&mut conn, world.connection.id, &good.chat, "GOOD")
            .await
            .unwrap()
            .is_none()
    );

    assert_eq!(accept(&mut conn, &[good]).await.messages, 1);
}

#[tokio::test]
async fn an_escaped_nul_in_the_metadata_and_a_long_text_are_stored() {
    let world = World::new().await;
    let message = NewMessage {
        metadata: "{\"push_name\":\"a\\u0000b\"}".to_owned(),
        content: "x".repeat(60 * 1024),
        ..world.message("A")
    };
    assert_eq!(
        accept(&mut world.conn().await, &[message])
            .await
            .events
            .len(),
        1
    );
}
