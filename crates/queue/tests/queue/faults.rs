//! Redis restarted, flushed, hanging or gone.

use std::time::{Duration, Instant};

use deadpool_redis::{Pool, Runtime};
use queue::{Doorbell, Listener, RingError, WaitError};
use redis::Client;
use testkit::{Server, Servers, eventually, free_port};
use tokio::net::TcpListener;
use uuid::Uuid;

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(10);

fn at(url: &str) -> (Pool, Client) {
    let pool = deadpool_redis::Config::from_url(url).create_pool(Some(Runtime::Tokio1));
    (pool.unwrap(), Client::open(url).unwrap())
}

pub(super) fn redis(servers: &Servers) -> (Pool, Client) {
    at(servers.redis_url())
}

/// Rings and waits until the ring is heard.
async fn is_heard(doorbell: &Doorbell, listener: &mut Listener) {
    let id = Uuid::new_v4();
    eventually(LONG, async || doorbell.ring_events(&[id]).await).await;
    eventually(LONG, async || {
        listener
            .wait(10, SHORT)
            .await
            .is_ok_and(|ids| ids.contains(&id))
    })
    .await;
}

#[tokio::test]
async fn a_ring_at_a_dead_redis_fails_at_once() {
    let (pool, _) = at(&format!("redis://127.0.0.1:{}", free_port()));
    let start = Instant::now();
    let error = Doorbell::new(pool)
        .ring_events(&[Uuid::new_v4()])
        .await
        .unwrap_err();
    assert!(matches!(error, RingError::Pool(_)), "{error}");
    assert!(
        start.elapsed() < Duration::from_millis(400),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_ring_at_a_silent_redis_costs_half_a_second_and_the_next_one_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (pool, _) = at(&format!("redis://{}", listener.local_addr().unwrap()));
    let doorbell = Doorbell::new(pool);
    let start = Instant::now();
    let error = doorbell.ring_events(&[Uuid::new_v4()]).await.unwrap_err();
    assert!(matches!(error, RingError::TimedOut), "{error}");
    assert!(
        start.elapsed() < Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );

    let start = Instant::now();
    for _ in 0..1000 {
        let error = doorbell.clone().ring_connections().await.unwrap_err();
        assert!(matches!(error, RingError::Resting), "{error}");
    }
    assert!(
        start.elapsed() < Duration::from_millis(200),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_wait_at_a_dead_redis_fails_with_pauses_in_between() {
    let (_, client) = at(&format!("redis://127.0.0.1:{}", free_port()));
    let mut listener = Listener::new(client);
    let start = Instant::now();
    for _ in 0..4 {
        let error = listener.wait(10, LONG).await.unwrap_err();
        assert!(matches!(error, WaitError::Redis(_)), "{error}");
    }
    let pauses = Duration::from_millis(50 + 100 + 200);
    assert!(
        start.elapsed() >= pauses && start.elapsed() < LONG,
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_restart_a_kill_of_the_connection_a_flush_and_a_stall_are_survived() {
    let servers = Servers::start_only(Server::Redis).await;
    let (pool, client) = redis(&servers);
    let (doorbell, mut listener) = (Doorbell::new(pool), Listener::new(client.clone()));
    is_heard(&doorbell, &mut listener).await;

    servers.restart(Server::Redis).await;
    is_heard(&doorbell, &mut listener).await;

    servers.crash(Server::Redis).await;
    assert!(listener.wait(10, SHORT).await.is_err());
    servers.resume(Server::Redis).await;
    is_heard(&doorbell, &mut listener).await;

    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut kill = redis::cmd("CLIENT");
    kill.arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
        .exec_async(&mut connection)
        .await
        .unwrap();
    is_heard(&doorbell, &mut listener).await;

    let flushed = async { redis::cmd("FLUSHALL").exec_async(&mut connection).await };
    let (heard, flushed) = tokio::join!(listener.wait(10, Duration::from_millis(500)), flushed);
    flushed.unwrap();
    assert!(heard.unwrap().is_empty(), "a flush does not end a wait");
    is_heard(&doorbell, &mut listener).await;

    servers.freeze(Server::Redis).await;
    let start = Instant::now();
    assert!(matches!(
        listener.wait(10, SHORT).await,
        Err(WaitError::TimedOut)
    ));
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    servers.thaw(Server::Redis);
    is_heard(&doorbell, &mut listener).await;
}
