use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use domain::client::Client;
use domain::keyring::Keyring;
use domain::parking::set_aside;
use domain::phone::Phone;
use domain::webhook::{Changes, Webhook, open_secret, seal_secret};
use secrecy::ExposeSecret;
use uuid::Uuid;

use crate::world::{World, register};

#[tokio::test]
async fn registering_a_number_again_updates_its_webhook_and_clears_its_failures() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let off = Changes {
        is_active: Some(false),
        max_retries: Some(9),
        ..Changes::default()
    };
    Webhook::update(&mut conn, world.client.id, world.webhook.id, &off)
        .await
        .unwrap();

    let phone: Phone = "+55 (11) 98888-7777".parse().unwrap();
    let changes = Changes {
        webhook_url: Some("https://example.com/other".to_owned()),
        ..Changes::default()
    };
    let (webhook, new) = Webhook::register(
        &mut conn,
        world.client.id,
        Uuid::now_v7(),
        &phone,
        &changes,
        b"new",
    )
    .await
    .unwrap();

    assert!(!new);
    assert_eq!(webhook.id, world.webhook.id);
    assert_eq!(webhook.webhook_url, "https://example.com/other");
    assert_eq!((webhook.is_active, webhook.max_retries), (true, 9));
    assert_eq!(webhook.secret, world.webhook.secret);
}

#[tokio::test]
async fn a_deleted_webhook_makes_room_for_a_new_one() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    assert!(
        Webhook::delete(&mut conn, world.client.id, world.webhook.id)
            .await
            .unwrap()
    );
    assert!(
        !Webhook::delete(&mut conn, world.client.id, world.webhook.id)
            .await
            .unwrap()
    );
    let again = register(
        &mut conn,
        world.client.id,
        crate::world::NUMBER,
        &["message"],
    )
    .await;
    assert_ne!(again.id, world.webhook.id);
}

#[tokio::test]
async fn a_webhook_that_is_deleted_while_it_is_registered_again_is_a_new_one() {
    let world = World::new().await;
    let (mut conn, mut other) = (world.conn().await, world.conn().await);
    let lock = "BEGIN; SELECT FROM whatsapp_webhooks FOR UPDATE";
    other.batch_execute(lock).await.unwrap();
    let client = world.client.id;
    let registered = tokio::spawn(async move {
        register(&mut conn, client, crate::world::NUMBER, &["message"]).await
    });
    world.waiting(1).await;
    let delete = "UPDATE whatsapp_webhooks SET deleted_at = now(); COMMIT";
    other.batch_execute(delete).await.unwrap();
    assert_ne!(registered.await.unwrap().id, world.webhook.id);
}

#[tokio::test]
async fn deleting_a_webhook_waits_for_no_event_that_is_being_recorded() {
    let world = World::new().await;
    let (mut conn, mut recorder) = (world.conn().await, world.conn().await);
    let ids = world.accept(&["A", "B"]).await;
    let lock = format!(
        "BEGIN; SELECT FROM whatsapp_webhook_events WHERE id = '{}' FOR UPDATE",
        ids[0]
    );
    recorder.batch_execute(&lock).await.unwrap();

    let deleted = Webhook::delete(&mut conn, world.client.id, world.webhook.id);
    let deleted = tokio::time::timeout(Duration::from_secs(20), deleted).await;
    assert!(
        deleted
            .expect("the recorder may wait for this webhook")
            .unwrap()
    );
    recorder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(world.event(ids[1]).await.status, "failed");

    world.make_due(ids[0]).await;
    assert_eq!(set_aside(&mut conn, 10).await.unwrap(), 1);
    assert_eq!(world.event(ids[0]).await.status, "failed");
}

#[tokio::test]
async fn changing_a_webhook_waits_for_no_dead_letter_that_is_being_written() {
    let world = World::new().await;
    let (mut conn, mut recorder) = (world.conn().await, world.conn().await);
    let refer = "BEGIN; SELECT FROM whatsapp_webhooks FOR KEY SHARE";
    recorder.batch_execute(refer).await.unwrap();
    let changed = async {
        let changes = Changes::default();
        Webhook::update(&mut conn, world.client.id, world.webhook.id, &changes)
            .await
            .unwrap();
        register(&mut conn, world.client.id, crate::world::NUMBER, &["*"]).await;
    };
    let changed = tokio::time::timeout(Duration::from_secs(20), changed).await;
    changed.expect("the recorder may wait for this webhook");
}

#[tokio::test]
async fn another_clients_webhook_is_not_there() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let stranger = Client::insert(&mut conn, "stranger").await.unwrap().id;
    let id = world.webhook.id;
    assert!(
        Webhook::find(&mut conn, stranger, id)
            .await
            .unwrap()
            .is_none()
    );
    let changes = Changes {
        max_retries: Some(1),
        ..Changes::default()
    };
    assert!(
        Webhook::update(&mut conn, stranger, id, &changes)
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        !Webhook::rotate_secret(&mut conn, stranger, id, b"x", 60)
            .await
            .unwrap()
    );
    assert!(!Webhook::delete(&mut conn, stranger, id).await.unwrap());
    assert!(
        Webhook::list(&mut conn, stranger, 10, None)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn pages_of_webhooks_meet_without_gap_or_overlap() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    for number in 0..7 {
        register(
            &mut conn,
            world.client.id,
            &format!("4915100000{number:02}"),
            &["*"],
        )
        .await;
    }
    let all = Webhook::list(&mut conn, world.client.id, 100, None)
        .await
        .unwrap();
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = Webhook::list(&mut conn, world.client.id, 3, after)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.id));
        paged.extend(page.into_iter().map(|webhook| webhook.id));
    }
    assert_eq!(
        paged,
        all.iter().map(|webhook| webhook.id).collect::<Vec<_>>()
    );
    assert_eq!(paged.len(), 8);
}

#[test]
fn a_sealed_secret_opens_for_its_own_webhook_only() {
    let keyring = Keyring::parse("k:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    let (mine, other) = (Uuid::new_v4(), Uuid::new_v4());
    let sealed = seal_secret(&keyring, mine, &"whsec_abc".to_owned().into());
    assert_eq!(
        open_secret(&keyring, mine, &sealed)
            .unwrap()
            .expose_secret(),
        "whsec_abc"
    );
    assert!(open_secret(&keyring, other, &sealed).is_err());
}
