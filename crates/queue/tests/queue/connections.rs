use std::time::Duration;

use queue::{ConnectionListener, Doorbell};
use testkit::{Server, Servers, eventually};

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
    assert!(
        one.wait(LONG).await.unwrap(),
        "a new subscription may have missed one"
    );
    assert!(two.wait(LONG).await.unwrap());
    assert!(!one.wait(SHORT).await.unwrap());
    assert!(!two.wait(SHORT).await.unwrap());
    for _ in 0..5 {
        doorbell.ring_connections().await.unwrap();
    }
    assert!(one.wait(LONG).await.unwrap());
    assert!(two.wait(LONG).await.unwrap());
    // The burst may have come in two parts, but not in five.
    one.wait(SHORT).await.unwrap();
    assert!(!one.wait(SHORT).await.unwrap());
}

#[tokio::test]
async fn a_listener_comes_back_after_a_restart_and_says_that_it_may_have_missed_one() {
    let servers = Servers::start_only(Server::Redis).await;
    let (pool, client) = super::faults::redis(&servers);
    let doorbell = Doorbell::new(pool);
    let mut listener = ConnectionListener::new(client);
    assert!(listener.wait(LONG).await.unwrap());
    servers.stop(Server::Redis).await;
    assert!(listener.wait(SHORT).await.is_err());
    assert!(listener.wait(SHORT).await.is_err());
    servers.resume(Server::Redis).await;
    eventually(LONG, async || {
        listener.wait(SHORT).await.is_ok_and(|rung| rung)
    })
    .await;
    eventually(LONG, async || doorbell.ring_connections().await).await;
    assert!(listener.wait(LONG).await.unwrap());

    // A server that hangs holds the subscription and says nothing: only a question shows it.
    servers.freeze(Server::Redis).await;
    assert!(listener.wait(SHORT).await.is_err());
    servers.thaw(Server::Redis);
    eventually(LONG, async || {
        listener.wait(SHORT).await.is_ok_and(|rung| rung)
    })
    .await;
}
