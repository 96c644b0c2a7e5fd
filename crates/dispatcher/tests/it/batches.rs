use domain::webhook::Changes;
use testkit::{Answer, Received};

use crate::world::{Hook, World};

async fn batching(world: &World, max_events: i32, max_wait_ms: i32) -> Hook {
    let hook = world.hook("/in").await;
    let changes = Changes {
        batch_max_events: Some(Some(max_events)),
        batch_max_wait_ms: Some(Some(max_wait_ms)),
        ..Changes::default()
    };
    world.change(&hook, &changes).await;
    hook
}

fn events(request: &Received) -> Vec<String> {
    let body = request.json();
    let events = body["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["event_id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn events_go_together_in_one_signed_request_with_an_id_of_its_own() {
    let world = World::new().await;
    let hook = batching(&world, 10, 5000).await;
    let running = world.dispatcher().await;
    let ids = world.send(&hook, 25).await;
    world.all(&ids, "delivered").await;
    let requests = world.receiver.received();
    let mut sizes: Vec<usize> = requests.iter().map(|r| events(r).len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [5, 10, 10]);
    let mut seen: Vec<String> = requests.iter().flat_map(events).collect();
    seen.sort();
    let mut sent: Vec<String> = ids.iter().map(ToString::to_string).collect();
    sent.sort();
    assert_eq!(seen, sent);
    for request in &requests {
        request.verify(hook.secret()).unwrap();
        let id = request.header("webhook-id").unwrap();
        assert!(!sent.iter().any(|event| event == id));
    }
    let attempts = world.attempts(ids[0]).await;
    assert!(attempts[0].batch_id.is_some());
    running.stop().await;
}

#[tokio::test]
async fn a_failed_batch_is_one_failure_and_is_retried_as_the_events_that_it_held() {
    let world = World::new().await;
    let hook = batching(&world, 8, 100).await;
    world
        .receiver
        .answers("/in", [Answer::status(500), Answer::ok()]);
    let running = world.dispatcher().await;
    let ids = world.send(&hook, 8).await;
    for id in &ids {
        world.attempted(*id, 1).await;
    }
    assert_eq!(world.webhook(&hook).await.failure_count, 1);
    world.make_due(&ids).await;
    world.all(&ids, "delivered").await;
    let retries = &world.receiver.received()[1..];
    assert_eq!(retries.len(), 8);
    assert!(retries.iter().all(|request| events(request).len() == 1));
    for id in ids {
        let numbers: Vec<i32> = world.attempts(id).await.iter().map(|a| a.attempt).collect();
        assert_eq!(numbers, [1, 2]);
    }
    running.stop().await;
}
