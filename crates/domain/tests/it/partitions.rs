use chrono::{Days, Utc};
use diesel_async::SimpleAsyncConnection;
use domain::claim::claim_due;
use domain::event::Event;
use domain::parking::park_followers;
use domain::partition::{Maintained, maintain};
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

/// As if everything had been committed weeks ago, in the partition of its day.
async fn long_ago(world: &World) {
    let epoch = chrono::DateTime::UNIX_EPOCH + Days::new(1);
    maintain(&mut world.conn().await, epoch, None)
        .await
        .unwrap();
    committed_long_ago(world).await;
}

async fn committed_long_ago(world: &World) {
    let backdate = "UPDATE whatsapp_webhook_events SET created_at = now() - interval '20 days';
        UPDATE whatsapp_messages SET created_at = now() - interval '20 days'";
    world.sql(backdate).await;
}

async fn retain(world: &World) -> Maintained {
    maintain(&mut world.conn().await, Utc::now(), Some(7))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_partition_goes_when_its_time_is_over_and_what_was_to_be_delivered_is_a_dead_letter() {
    let world = World::new().await;
    world.accept(&["DUE", "PARKED"]).await;
    world
        .sql(
            "UPDATE whatsapp_webhook_events SET next_retry_at = NULL, parked = 'inactive'
             WHERE message_id = 'PARKED'",
        )
        .await;
    long_ago(&world).await;

    let done = retain(&world).await;
    assert_eq!(done.buried, 2);
    // Five days of each of the three tables.
    assert_eq!((done.dropped.len(), done.kept.len()), (15, 0));
    assert_eq!(world.count(IN_ALL).await, 0);
    let letters = "SELECT count(*) AS count FROM whatsapp_dead_letters
        WHERE reason = 'the retention is over' AND content LIKE 'content of %'";
    assert_eq!(world.count(letters).await, 2);
    assert_eq!(retain(&world).await, Maintained::default());
}

#[tokio::test]
async fn a_claimed_event_keeps_its_partition_until_its_outcome_is_recorded() {
    let world = World::new().await;
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    long_ago(&world).await;
    let done = retain(&world).await;
    assert_eq!(done.kept, ["whatsapp_webhook_events_19700101"]);
    assert_eq!(done.buried, 0);

    let delivered = world::record(&claimed, token, Outcome::Delivered);
    let recorded = record(&mut world.conn().await, &[delivered]).await.unwrap();
    assert_eq!(recorded.superseded, 0);
    let done = retain(&world).await;
    assert_eq!(done.dropped, ["whatsapp_webhook_events_19700101"]);
}

#[tokio::test]
async fn a_message_that_whatsapp_kept_for_weeks_has_its_whole_time_here() {
    let world = World::new().await;
    let id = world.accept(&["A"]).await[0];
    let in_default = retain(&world).await;
    assert_eq!((in_default.buried, in_default.deleted), (0, 0));
    let epoch = chrono::DateTime::UNIX_EPOCH + Days::new(1);
    maintain(&mut world.conn().await, epoch, None)
        .await
        .unwrap();
    let in_partition = retain(&world).await;
    assert_eq!(in_partition.kept, ["whatsapp_webhook_events_19700101"]);
    assert_eq!(world.event(id).await.status, "pending");
}

#[tokio::test]
async fn what_is_too_old_for_any_partition_is_deleted_when_its_time_is_over() {
    let world = World::new().await;
    let token = Uuid::new_v4();
    let mut conn = world.conn().await;
    let ids = world.accept(&["PENDING"]).await;
    world.attempt(&["DELIVERED"], Outcome::Delivered).await;
    let held = world.claimed("CLAIMED", token).await;
    committed_long_ago(&world).await;
    world.accept(&["YOUNG"]).await;

    let done = retain(&world).await;
    // Three messages; the event that was delivered and the one that is a dead letter now.
    assert_eq!((done.buried, done.deleted), (1, 5));
    assert_eq!(world.count(IN_ALL).await, 2);
    assert_eq!(world.event(held.id).await.status, "pending");
    assert!(
        Event::find(&mut conn, world.client.id, ids[0])
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn retention_takes_very_many_rows_in_batches() {
    let world = World::new().await;
    world.seed_parked(1300, "inactive").await;
    let age = "UPDATE whatsapp_webhook_events SET created_at = now() - interval '20 days',
        id = ('00000000' || substr(id::text, 9))::uuid";
    world.sql(age).await;
    let done = retain(&world).await;
    assert_eq!((done.buried, done.deleted), (1300, 1300));
    let letters = "SELECT count(*) AS count FROM whatsapp_dead_letters";
    assert_eq!(world.count(letters).await, 1300);
}

#[tokio::test]
async fn a_chat_whose_head_the_retention_buries_goes_on() {
    let world = World::new().await;
    world
        .sql("UPDATE whatsapp_webhooks SET ordered = true")
        .await;
    let ids = world.accept(&["A1", "A2"]).await;
    world
        .sql("UPDATE whatsapp_webhook_events SET next_retry_at = now() + interval '6 h'")
        .await;
    world.make_due(ids[1]).await;
    let mut conn = world.conn().await;
    assert_eq!(park_followers(&mut conn, 10).await.unwrap(), 1);
    committed_long_ago(&world).await;
    let young = "UPDATE whatsapp_webhook_events SET created_at = now() WHERE message_id = 'A2'";
    world.sql(young).await;
    assert_eq!(retain(&world).await.buried, 1);
    let due = claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
        .await
        .unwrap();
    assert_eq!(due[0].id, ids[1]);
}

#[tokio::test]
async fn a_reader_of_an_old_partition_stops_the_upkeep_and_nobody_else() {
    let world = World::new().await;
    let token = Uuid::new_v4();
    world.accept(&["OLD"]).await;
    long_ago(&world).await;
    let mut reader = world.conn().await;
    let read = "BEGIN; SELECT FROM whatsapp_webhook_events_19700101";
    reader.batch_execute(read).await.unwrap();
    let mut upkeep = world.conn().await;
    let upkeep = tokio::spawn(async move { maintain(&mut upkeep, Utc::now(), Some(7)).await });
    world.waiting(1).await;
    // While the upkeep stands in line, and after it has given way.
    let delivered = world.claimed("NEW", token).await;
    let delivered = world::record(&delivered, token, Outcome::Delivered);
    record(&mut world.conn().await, &[delivered]).await.unwrap();
    assert!(upkeep.await.unwrap().is_err());
    reader.batch_execute("COMMIT").await.unwrap();
    assert!(!retain(&world).await.dropped.is_empty());
}

#[tokio::test]
async fn a_new_partition_brings_the_indexes_of_its_table_and_has_none_built_again() {
    let world = World::new().await;
    world.accept(&["A"]).await;
    let indexes = "SELECT count(*) AS count FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        WHERE c.relname = 'whatsapp_webhook_events_19700101'";
    let inherited = "SELECT count(*) AS count FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        JOIN pg_inherits h ON h.inhrelid = i.indexrelid JOIN pg_index p ON p.indexrelid = h.inhparent
        WHERE c.relname = 'whatsapp_webhook_events_19700101'
          AND p.indrelid = 'whatsapp_webhook_events'::regclass
          AND pg_get_expr(p.indpred, p.indrelid) IS NOT DISTINCT FROM pg_get_expr(i.indpred, i.indrelid)";
    let wanted = "SELECT count(*) AS count FROM pg_index WHERE indrelid = 'whatsapp_webhook_events'::regclass";
    long_ago(&world).await;
    let wanted = world.count(wanted).await;
    assert_eq!(
        (world.count(indexes).await, world.count(inherited).await),
        (wanted, wanted)
    );
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
