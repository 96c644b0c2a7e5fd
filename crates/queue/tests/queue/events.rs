use std::collections::HashSet;
use std::time::{Duration, Instant};

use queue::doorbell::MAX_EVENTS;
use queue::{Doorbell, Listener, keys};
use testkit::RedisDatabase;
use uuid::Uuid;

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(10);

fn ids(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::new_v4()).collect()
}

#[tokio::test]
async fn what_is_rung_is_heard_in_order_and_in_portions() {
    let redis = RedisDatabase::acquire().await;
    let (doorbell, mut listener) = (Doorbell::new(redis.pool()), Listener::new(redis.client()));
    let ids = ids(25);
    doorbell.ring_events(&ids[..5]).await.unwrap();
    doorbell.ring_events(&ids[5..]).await.unwrap();
    doorbell.ring_events(&[]).await.unwrap();
    assert_eq!(listener.wait(10, LONG).await.unwrap(), ids[..10]);
    assert_eq!(listener.wait(1, LONG).await.unwrap(), ids[10..11]);
    assert_eq!(listener.wait(100, LONG).await.unwrap(), ids[11..]);
    assert!(listener.wait(100, SHORT).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_wait_outlives_the_half_second_that_pooled_connections_have() {
    let redis = RedisDatabase::acquire().await;
    let doorbell = Doorbell::new(redis.pool());
    let mut listener = Listener::new(redis.client());
    let start = Instant::now();
    let waiting = tokio::spawn(async move { listener.wait(10, LONG).await });
    // Not a wait for a condition: the wait itself is what is tested.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let id = Uuid::new_v4();
    doorbell.ring_events(&[id]).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), [id]);
    assert!(start.elapsed() < LONG);
}

#[tokio::test]
async fn nobody_hears_what_another_has_heard() {
    let redis = RedisDatabase::acquire().await;
    let doorbell = Doorbell::new(redis.pool());
    let mut one = Listener::new(redis.client());
    let mut two = Listener::new(redis.client());
    let ids = ids(200);
    doorbell.ring_events(&ids).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < ids.len() {
        let (a, b) = tokio::join!(one.wait(7, SHORT), two.wait(3, SHORT));
        heard.extend(a.unwrap());
        heard.extend(b.unwrap());
    }
    assert_eq!(heard.len(), ids.len());
    assert_eq!(HashSet::<Uuid>::from_iter(heard), HashSet::from_iter(ids));
}

#[tokio::test]
async fn a_wait_that_is_dropped_takes_nothing_with_it() {
    let redis = RedisDatabase::acquire().await;
    let doorbell = Doorbell::new(redis.pool());
    let mut listener = Listener::new(redis.client());
    let given_up = tokio::time::timeout(Duration::from_millis(200), listener.wait(10, LONG)).await;
    assert!(given_up.is_err());
    // The server notices the closed connection at the latest when it looks at its sockets again.
    let id = Uuid::new_v4();
    testkit::eventually(LONG, async || blocked_clients(&redis).await == 0).await;
    doorbell.ring_events(&[id]).await.unwrap();
    assert_eq!(listener.wait(10, LONG).await.unwrap(), [id]);
}

/// Clients of this database that wait in a blocking pop.
async fn blocked_clients(redis: &RedisDatabase) -> usize {
    let mut connection = redis
        .client()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let list: String = ::redis::cmd("CLIENT")
        .arg("LIST")
        .query_async(&mut connection)
        .await
        .unwrap();
    let database = format!(
        " db={} ",
        redis.client().get_connection_info().redis_settings().db()
    );
    list.lines()
        .filter(|line| line.contains(&database) && line.contains(" cmd=blpop"))
        .count()
}

#[tokio::test]
async fn the_list_is_cut_to_its_newest() {
    let redis = RedisDatabase::acquire().await;
    let doorbell = Doorbell::new(redis.pool());
    let ids = ids(MAX_EVENTS + 50);
    for some in ids.chunks(40_000) {
        doorbell.ring_events(some).await.unwrap();
    }
    let mut connection = redis
        .client()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let length: usize = ::redis::cmd("LLEN")
        .arg(keys::EVENTS_DUE)
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(length, MAX_EVENTS);
    let heard = Listener::new(redis.client()).wait(1, LONG).await.unwrap();
    assert_eq!(heard, ids[50..51], "the oldest were cut");
}

#[tokio::test]
async fn an_entry_that_is_no_id_is_skipped_and_counted() {
    let redis = RedisDatabase::acquire().await;
    let id = Uuid::new_v4();
    let mut connection = redis
        .client()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    ::redis::cmd("RPUSH")
        .arg(keys::EVENTS_DUE)
        .arg("not an id")
        .arg(id.as_bytes())
        .arg(id.to_string())
        .exec_async(&mut connection)
        .await
        .unwrap();
    let mut listener = Listener::new(redis.client());
    assert_eq!(listener.wait(10, LONG).await.unwrap(), [id]);
    assert_eq!(listener.malformed(), 2);
}
