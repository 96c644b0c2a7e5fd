//! The circuit, seen from outside: an outage uses up no event, and what waited flows when it is over.

use std::time::Duration;

use domain::webhook::Changes;
use testkit::{Answer, eventually};

use crate::world::{SOON, World};

/// Lets five events fail, which opens the circuit.
async fn fail(world: &World, hook: &crate::world::Hook) -> Vec<uuid::Uuid> {
    world.receiver.answer(&hook.path, Answer::status(500));
    let ids = world.send(hook, 5).await;
    for id in &ids {
        world.attempted(*id, 1).await;
    }
    eventually(SOON, async || {
        let status = world.webhook(hook).await.status;
        (status == "failed").then_some(()).ok_or(status)
    })
    .await;
    ids
}

#[tokio::test]
async fn an_outage_uses_up_no_event_and_what_waited_flows_after_one_success() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let running = world.dispatcher().await;
    let failed = fail(&world, &hook).await;

    // They wait; nothing of them is attempted but for probes.
    let waiting = world.commit(&hook, 200).await;
    world.make_due(&waiting).await;
    world.make_due(&failed).await;
    world.parked(waiting[199], "circuit_open").await;
    world.probe_now(&hook).await;
    let probe = eventually(SOON, async || {
        let attempts = world.probes(&hook).await;
        attempts.first().cloned().ok_or("no probe yet")
    })
    .await;
    assert_eq!(probe.http_status, Some(500));
    let sent = world.receiver.received().len();
    assert!(sent <= 7, "{sent} requests in all");
    for id in &waiting {
        assert_eq!(world.event(*id).await.attempt_count, 0);
    }

    world.receiver.answer(&hook.path, Answer::ok());
    world.probe_now(&hook).await;
    let all = [failed, waiting].concat();
    world.all(&all, "delivered").await;
    let webhook = world.webhook(&hook).await;
    assert_eq!(
        (webhook.status.as_str(), webhook.failure_count),
        ("active", 0)
    );
    running.stop().await;
}

/// Peers skip a manual retry silently, or let it wait for hours.
#[tokio::test]
async fn a_manual_retry_behind_an_open_circuit_goes_out_at_once() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let running = world.dispatcher().await;
    let ids = fail(&world, &hook).await;
    world.receiver.answer(&hook.path, Answer::ok());
    let requeued = domain::event::Event::requeue(&mut *world.conn().await, world.client.id, ids[3])
        .await
        .unwrap();
    assert_eq!(requeued, domain::event::Requeue::Requeued);
    world.all(&ids[3..4], "delivered").await;
    assert_eq!(world.webhook(&hook).await.status, "active");
    running.stop().await;
}

#[tokio::test]
async fn the_clients_other_webhooks_are_told_and_the_one_that_it_is_about_is_not() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let watcher = world.hook("/watch").await;
    let types = |types: &[&str]| Changes {
        event_types: Some(types.iter().map(ToString::to_string).collect()),
        ..Changes::default()
    };
    world.change(&watcher, &types(&["webhook.*"])).await;
    world.change(&hook, &types(&["*"])).await;
    let running = world.dispatcher().await;
    fail(&world, &hook).await;
    world.receiver.answer(&hook.path, Answer::status(410));
    let gone = world.send(&hook, 1).await;
    world.make_due(&gone).await;
    world.probe_now(&hook).await;
    let told = eventually(Duration::from_secs(20), async || {
        let told: Vec<_> = world.receiver.received_at("/watch");
        let told: Vec<serde_json::Value> = told.iter().map(|request| request.json()).collect();
        match told.len() {
            0 | 1 => Err(format!("{told:?}")),
            _ => Ok(told),
        }
    })
    .await;
    let events: Vec<_> = told.iter().map(|body| body["event"].as_str()).collect();
    assert_eq!(
        events,
        [Some("webhook.failing"), Some("webhook.deactivated")]
    );
    assert_eq!(told[0]["metadata"]["webhook_id"], hook.id.to_string());
    let own = world.receiver.received_at(&hook.path);
    assert!(
        own.iter()
            .all(|request| request.json()["event"] == "message")
    );
    running.stop().await;
}
