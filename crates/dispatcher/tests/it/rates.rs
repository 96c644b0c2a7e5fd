use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::webhook::Changes;
use runtime::config::RedisConfig;
use testkit::{eventually, free_port};

use crate::world::{Hook, Running, World};

async fn limited(world: &World, path: &str, per_second: i32) -> Hook {
    let hook = world.hook(path).await;
    let changes = Changes {
        rate_limit_per_second: Some(Some(per_second)),
        ..Changes::default()
    };
    world.change(&hook, &changes).await;
    hook
}

/// The most requests that arrived within any second.
fn most_in_a_second(mut arrived: Vec<DateTime<Utc>>) -> usize {
    arrived.sort_unstable();
    let within = |from: &DateTime<Utc>| {
        let until = *from + TimeDelta::seconds(1);
        arrived
            .iter()
            .filter(|at| (*from..until).contains(at))
            .count()
    };
    arrived.iter().map(within).max().unwrap_or(0)
}

async fn arrivals(world: &World, path: &str, count: usize) -> Vec<DateTime<Utc>> {
    eventually(Duration::from_secs(30), async || {
        let arrived: Vec<_> = world.receiver.received_at(path);
        match arrived.len() >= count {
            true => Ok(arrived.iter().map(|request| request.arrived).collect()),
            false => Err(format!("{} of {count}", arrived.len())),
        }
    })
    .await
}

async fn stop(all: [Running; 2]) {
    for running in all {
        running.stop().await;
    }
}

#[tokio::test]
async fn a_webhooks_rate_holds_over_all_dispatchers_and_everything_arrives() {
    let world = World::new().await;
    let hook = limited(&world, "/slow", 20).await;
    let other = world.hook("/fast").await;
    let running = [world.dispatcher().await, world.dispatcher().await];
    let ids = world.send(&hook, 80).await;
    let fast = world.send(&other, 80).await;
    world.all(&fast, "delivered").await;
    let meanwhile = world.receiver.received_at("/slow").len();
    assert!(meanwhile < 80, "the others do not wait for it");
    let arrived = arrivals(&world, "/slow", 80).await;
    let most = most_in_a_second(arrived);
    assert!((10..=24).contains(&most), "{most} in a second");
    world.all(&ids, "delivered").await;
    stop(running).await;
}

#[tokio::test]
async fn a_clients_rate_holds_over_all_of_its_webhooks() {
    let world = World::new().await;
    world.limit_client(20).await;
    let hooks = [world.hook("/a").await, world.hook("/b").await];
    let running = world.dispatcher().await;
    for hook in &hooks {
        world.send(hook, 30).await;
    }
    let mut arrived = arrivals(&world, "/a", 30).await;
    arrived.extend(arrivals(&world, "/b", 30).await);
    let most = most_in_a_second(arrived);
    assert!((10..=24).contains(&most), "{most} in a second");
    running.stop().await;
}

#[tokio::test]
async fn without_redis_each_dispatcher_keeps_the_rate_for_itself() {
    let world = World::new().await;
    let hook = limited(&world, "/slow", 20).await;
    let mut config = world.config();
    config.redis = RedisConfig::from_url(&format!("redis://127.0.0.1:{}", free_port())).unwrap();
    let running = crate::world::start(config).await;
    let ids = world.commit(&hook, 40).await;
    world.make_due(&ids).await;
    let arrived = arrivals(&world, "/slow", 40).await;
    let most = most_in_a_second(arrived);
    assert!((10..=24).contains(&most), "{most} in a second");
    running.stop().await;
}
