use std::time::Duration;

use queue::{ConnectionListener, Doorbell, News};
use testkit::{Server, Servers, eventually};
use uuid::Uuid;

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(10);

/// Pub/sub is shared by all databases of a server, so each test of it has a server of its own.
#[tokio::test]
async fn every_listener_hears_a_ring_and_a_burst_is_one() {
    let servers = Servers::start_only(Server::Redis).await;
    let (pool, client) = super::faults::redis(&servers);
    let doorbell = Doorbell::new(pool);
    let mut one = ConnectionListener::new(client.clone());
    let mut two = ConnectionListener::new(client);
    // A new subscription may have missed one.
    assert_eq!(one.wait(LONG).await.unwrap(), Some(News::Wanted));
    assert_eq!(two.wait(LONG).await.unwrap(), Some(News::Wanted));
    assert_eq!(one.wait(SHORT).await.unwrap(), None);
    assert_eq!(two.wait(SHORT).await.unwrap(), None);
    for _ in 0..5 {
        doorbell.ring_connections().await.unwrap();
    }
    assert_eq!(one.wait(LONG).await.unwrap(), Some(News::Wanted));
    assert_eq!(two.wait(LONG).await.unwrap(), Some(News::Wanted));
    // The burst may have come in two parts, but not in five.
    one.wait(SHORT).await.unwrap();
    assert_eq!(one.wait(SHORT).await.unwrap(), None);
}

#[tokio::test]
async fn a_ring_for_what_is_to_be_sent_says_over_which_connections() {
    let servers = Servers::start_only(Server::Redis).await;
    let (pool, client) = super::faults::redis(&servers);
    let doorbell = Doorbell::new(pool);
    let mut listener = ConnectionListener::new(client);
    listener.wait(LONG).await.unwrap();
    let rung: Vec<Uuid> = (1..=5).map(Uuid::from_u128).collect();
    for connection in &rung {
        doorbell.ring_outbox(*connection).await.unwrap();
    }
    let mut heard = Vec::new();
    while heard.len() < rung.len() {
        match listener.wait(LONG).await.unwrap() {
            Some(News::ToSend(connections)) => heard.extend(connections),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, rung);
}

#[tokio::test]
async fn a_listener_comes_back_after_a_restart_and_says_that_it_may_have_missed_one() {
    let servers = Servers::start_only(Server::Redis).await;
    let (pool, client) = super::faults::redis(&servers);
    let doorbell = Doorbell::new(pool);
    let mut listener = ConnectionListener::new(client);
    assert!(listener.wait(LONG).await.unwrap().is_some());
    servers.stop(Server::Redis).await;
    assert!(listener.wait(SHORT).await.is_err());
    assert!(listener.wait(SHORT).await.is_err());
    servers.resume(Server::Redis).await;
    eventually(LONG, async || {
        listener.wait(SHORT).await.is_ok_and(|news| news.is_some())
    })
    .await;
    eventually(LONG, async || doorbell.ring_connections().await).await;
    assert!(listener.wait(LONG).await.unwrap().is_some());

    // A server that hangs holds the subscription and says nothing: only a question shows it.
    servers.freeze(Server::Redis).await;
    assert!(listener.wait(SHORT).await.is_err());
    servers.thaw(Server::Redis);
    eventually(LONG, async || {
        listener.wait(SHORT).await.is_ok_and(|news| news.is_some())
    })
    .await;
}
