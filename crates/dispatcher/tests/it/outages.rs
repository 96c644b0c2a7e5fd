use std::time::Duration;

use testkit::{Answer, Server, Servers, eventually, free_port};

use crate::world::{SOON, World};

#[tokio::test]
async fn a_flushed_redis_loses_nothing() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let ids = world.send(&hook, 20).await;
    let mut redis = world
        .redis
        .client()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    redis::cmd("FLUSHDB").exec_async(&mut redis).await.unwrap();
    let running = world.dispatcher().await;
    // Nobody makes them due: they are, some seconds after their commit.
    world.all(&ids, "delivered").await;
    assert_eq!(world.receiver.received().len(), 20);
    running.stop().await;
}

#[tokio::test]
async fn without_redis_everything_is_delivered_and_readyz_says_what_is_missing() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let program = world.program().env("REDIS_URL", nobody).without_readiness();
    let mut process = program.start().await;
    let ids = world.commit(&hook, 5).await;
    world.make_due(&ids).await;
    world.all(&ids, "delivered").await;
    let (status, report) = readyz(&process.url("OPS_PORT")).await;
    assert_eq!(
        (status, report["checks"]["postgres"].as_str()),
        (503, Some("ok"))
    );
    assert_ne!(report["checks"]["redis"], "ok");
    let told = process
        .logs()
        .matches("trying again until it works")
        .count();
    assert_eq!(told, 1, "{}", process.logs());
    assert!(process.stop().await.success());
}

#[tokio::test]
async fn what_was_in_flight_when_postgresql_went_is_recorded_when_it_is_back() {
    let servers = Servers::start().await;
    let world = World::on(servers.database().await).await;
    let hook = world.hook("/in").await;
    world
        .receiver
        .answer("/in", Answer::ok().delay(Duration::from_millis(400)));
    let mut process = world.program().start().await;
    let ids = world.send(&hook, 30).await;
    eventually(SOON, async || world.receiver.in_flight("/in") == 16).await;
    servers.stop(Server::Postgres).await;
    world.receiver.answer("/in", Answer::ok());
    // Claimed already, hence delivered without PostgreSQL.
    world.receiver.wait_for(30, SOON).await;
    eventually(SOON, async || {
        let (_, report) = readyz(&process.url("OPS_PORT")).await;
        report["checks"]["postgres"] != "ok"
    })
    .await;
    servers.resume(Server::Postgres).await;
    world.all(&ids, "delivered").await;
    assert_eq!(
        world.receiver.received().len(),
        30,
        "nothing was sent twice"
    );

    let more = world.send(&hook, 5).await;
    world.all(&more, "delivered").await;
    eventually(SOON, async || {
        readyz(&process.url("OPS_PORT")).await.0 == 200
    })
    .await;
    assert!(process.stop().await.success());
}

pub(crate) async fn readyz(url: &str) -> (u16, serde_json::Value) {
    runtime::tls::install_provider();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("{url}/readyz")).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}
