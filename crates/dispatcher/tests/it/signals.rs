use std::collections::HashSet;
use std::time::Duration;

use testkit::{Answer, Signal, eventually};
use uuid::Uuid;

use crate::world::{Hook, SOON, World};

/// Starts the real binary and waits until sixteen attempts of the hook are in flight.
async fn in_flight(world: &World, hook: &Hook, ids: &[Uuid]) -> testkit::Process {
    let process = world.program().start().await;
    world.make_due(ids).await;
    eventually(SOON, async || world.receiver.in_flight(&hook.path) == 16).await;
    process
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_gives_back_the_rest() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    world
        .receiver
        .answer("/in", Answer::ok().delay(Duration::from_millis(700)));
    let ids = world.commit(&hook, 200).await;
    let mut process = in_flight(&world, &hook, &ids).await;

    assert!(process.stop().await.success(), "{}", process.logs());
    let sent = world.receiver.received().len();
    let (mut delivered, mut waiting) = (0, Vec::new());
    for id in &ids {
        let event = world.event(*id).await;
        match event.status.as_str() {
            "delivered" => delivered += 1,
            _ => waiting.push(event),
        }
    }
    assert_eq!(delivered, sent);
    assert!((16..200).contains(&sent), "{sent}");
    for event in &waiting {
        assert_eq!((event.status.as_str(), event.attempt_count), ("pending", 0));
    }

    world.receiver.answer("/in", Answer::ok());
    // What was given back is due; what had no room is due a little later.
    let rest: Vec<Uuid> = waiting.iter().map(|event| event.id).collect();
    world.make_due(&rest).await;
    process.start_again().await;
    world.all(&ids, "delivered").await;
    assert_eq!(
        world.receiver.received().len(),
        ids.len(),
        "nothing was sent twice"
    );
}

#[tokio::test]
async fn sigkill_loses_nothing() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    world
        .receiver
        .answer("/in", Answer::ok().delay(Duration::from_millis(300)));
    let ids = world.commit(&hook, 60).await;
    let mut process = in_flight(&world, &hook, &ids).await;
    process.kill().await;
    let unrecorded = world.receiver.received().len() - delivered(&world, &ids).await;

    world.receiver.answer("/in", Answer::ok());
    process.start_again().await;
    // As if the dead dispatcher's claims had run out.
    let held = pending(&world, &ids).await;
    world.make_due(&held).await;
    world.all(&ids, "delivered").await;
    let received = world.receiver.received();
    let distinct: HashSet<_> = received.iter().map(|r| r.header("webhook-id")).collect();
    assert_eq!(distinct.len(), ids.len());
    assert!(received.len() - ids.len() <= unrecorded);
}

#[tokio::test]
async fn a_dispatcher_that_slept_through_its_claim_changes_nothing() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    world
        .receiver
        .answer("/in", Answer::status(500).delay(Duration::from_millis(500)));
    let id = world.commit(&hook, 1).await[0];
    world.make_due(&[id]).await;
    let mut asleep = world.program().start().await;
    eventually(SOON, async || world.receiver.in_flight("/in") == 1).await;
    asleep.signal(Signal::STOP);

    world.receiver.answer("/in", Answer::ok());
    // As if the sleeper's claim had run out.
    world.make_due(&[id]).await;
    let mut awake = world.program().start().await;
    world.all(&[id], "delivered").await;

    asleep.signal(Signal::CONT);
    let attempts = eventually(SOON, async || {
        let attempts = world.attempts(id).await;
        (attempts.len() == 2).then_some(attempts)
    })
    .await;
    let late = attempts.iter().find(|attempt| attempt.superseded).unwrap();
    assert_eq!(late.http_status, Some(500));
    assert_eq!(world.event(id).await.status, "delivered");
    assert!(asleep.stop().await.success() && awake.stop().await.success());
}

async fn pending(world: &World, ids: &[Uuid]) -> Vec<Uuid> {
    let mut pending = Vec::new();
    for id in ids {
        if world.event(*id).await.status == "pending" {
            pending.push(*id);
        }
    }
    pending
}

async fn delivered(world: &World, ids: &[Uuid]) -> usize {
    ids.len() - pending(world, ids).await.len()
}
