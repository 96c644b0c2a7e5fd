use std::time::Duration;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use domain::schema::whatsapp_webhook_events as events;
use testkit::Answer;

use crate::world::World;

/// PEERS' complaint: a slow receiver stalls the others.
#[tokio::test]
async fn a_receiver_that_hangs_keeps_nobody_else_waiting() {
    let world = World::new().await;
    world.receiver.answer("/hang", Answer::hang());
    let stuck = world.hook("/hang").await;
    let healthy = world.hook("/fine").await;
    let running = world.dispatcher().await;
    // More than a dispatcher holds in hand, and all of it due.
    let waiting = world.commit(&stuck, 3000).await;
    world.make_due(&waiting).await;
    testkit::eventually(Duration::from_secs(10), async || {
        world.receiver.in_flight("/hang") == 16
    })
    .await;

    let mut delays = Vec::new();
    for _ in 0..100 {
        let id = world.send(&healthy, 1).await[0];
        world.all(&[id], "delivered").await;
        let event = world.event(id).await;
        let request = world.receiver.received_at("/fine").pop().unwrap();
        delays.push((request.arrived - event.created_at).num_milliseconds());
    }
    delays.sort_unstable();
    assert!(delays[95] < 250, "{delays:?}");
    assert_eq!(world.receiver.most_at_once("/hang"), 16);

    // What the lane had no room for waits in PostgreSQL, and nothing of it was used up.
    let held: i64 = events::table
        .filter(events::webhook_id.eq(stuck.id))
        .filter(events::claim_token.is_not_null())
        .count()
        .get_result(&mut *world.conn().await)
        .await
        .unwrap();
    assert!(held <= 600, "{held}");
    assert_eq!(world.event(waiting[2999]).await.attempt_count, 0);
    running.stop().await;
}

#[tokio::test]
async fn one_webhook_has_at_most_sixteen_in_flight_and_gets_everything() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    world
        .receiver
        .answer("/in", Answer::ok().delay(Duration::from_millis(20)));
    let running = world.dispatcher().await;
    let ids = world.send(&hook, 400).await;
    world.all(&ids, "delivered").await;
    assert_eq!(world.receiver.most_at_once("/in"), 16);
    assert_eq!(world.receiver.received().len(), 400);
    running.stop().await;
}
