use chrono::{Days, Utc};
use diesel_async::SimpleAsyncConnection;
use domain::partition::maintain;
use domain::record::{Outcome, record};
use uuid::Uuid;

use crate::world::{self, World};

const IN_DEFAULT: &str = "SELECT count(*) AS count FROM whatsapp_webhook_events_default";
const IN_ALL: &str = "SELECT count(*) AS count FROM whatsapp_webhook_events";

#[tokio::test]
async fn maintenance_is_idempotent() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    maintain(&mut conn, Utc::now(), None).await.unwrap();
    let again = maintain(&mut conn, Utc::now(), None).await.unwrap();
    assert!(again.made.is_empty() && again.dropped.is_empty() && again.kept.is_empty());
}

#[tokio::test]
async fn rows_that_came_before_their_partition_are_moved_into_it() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let id = world.accept(&["A"]).await[0];
    assert_eq!(world.count(IN_ALL).await, 1);
    let before = world.count(IN_DEFAULT).await;
    assert_eq!(
        before, 1,
        "the world's messages are of 1970, which no partition holds"
    );

    maintain(&mut conn, chrono::DateTime::UNIX_EPOCH + Days::new(1), None)
        .await
        .unwrap();

    assert_eq!(world.count(IN_DEFAULT).await, 0);
    assert_eq!(world.event(id).await.status, "pending");
}

#[tokio::test]
async fn a_partition_goes_when_its_time_is_over_but_not_with_events_to_deliver() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let epoch = chrono::DateTime::UNIX_EPOCH + Days::new(1);
    let id = world.accept(&["A"]).await[0];
    maintain(&mut conn, epoch, None).await.unwrap();

    let kept = maintain(&mut conn, Utc::now(), Some(7)).await.unwrap();
    assert_eq!(kept.kept, ["whatsapp_webhook_events_19700101"]);
    assert!(!kept.dropped.is_empty());
    assert_eq!(world.event(id).await.status, "pending");

    domain::webhook::Webhook::delete(&mut conn, world.client.id, world.webhook.id)
        .await
        .unwrap();
    let dropped = maintain(&mut conn, Utc::now(), Some(7)).await.unwrap();
    assert_eq!(dropped.dropped, ["whatsapp_webhook_events_19700101"]);
    assert_eq!(world.count(IN_ALL).await, 0);
}

#[tokio::test]
async fn several_maintenances_at_once_make_each_partition_once() {
    let world = World::new().await;
    let runs = (0..4).map(|_| async {
        let mut conn = world.conn().await;
        maintain(&mut conn, Utc::now(), None).await.unwrap().made
    });
    let mut made = futures_util::future::join_all(runs).await.concat();
    let total = made.len();
    made.sort();
    made.dedup();
    assert_eq!((made.len(), total), (15, 15));
}

#[tokio::test]
async fn while_a_partition_is_made_no_row_is_refused_and_none_is_missed() {
    let world = World::new().await;
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    let message = world.message("B");
    let mut holder = world.conn().await;
    let [mut upkeep, mut writer, mut recorder] =
        [world.conn().await, world.conn().await, world.conn().await];

    // Upkeep waits for a reader, and the others, whose rows are of that day, wait for upkeep.
    let hold = "BEGIN; LOCK TABLE whatsapp_webhook_events_default IN ACCESS SHARE MODE";
    holder.batch_execute(hold).await.unwrap();
    let epoch = chrono::DateTime::UNIX_EPOCH + Days::new(1);
    let upkeep = tokio::spawn(async move { maintain(&mut upkeep, epoch, None).await });
    world.waiting(1).await;
    let written = tokio::spawn(async move { world::accept(&mut writer, &[message]).await });
    let recorded = tokio::spawn(async move {
        let delivered = world::record(&claimed, token, Outcome::Delivered);
        record(&mut recorder, &[delivered]).await
    });
    world.waiting(3).await;
    holder.batch_execute("COMMIT").await.unwrap();

    assert_eq!(written.await.unwrap().events.len(), 1);
    let recorded = recorded.await.unwrap().unwrap();
    assert_eq!(recorded.superseded, 0);
    assert!(!upkeep.await.unwrap().unwrap().made.is_empty());
}
