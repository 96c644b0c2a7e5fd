use std::time::Duration;

use testkit::{Server, Servers, eventually};
use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::wacore::store::traits::{
    DeviceStore, MsgSecretStore, ProtocolStore, SignalStore,
};

use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_fail_waits_until_postgresql_is_back() {
    let servers = Servers::start_only(Server::Postgres).await;
    let world = World::over(servers.database().await).await;
    let store = std::sync::Arc::new(world.store().await);
    store.create().await.unwrap();
    let device = store.load().await.unwrap().unwrap();
    store.put_session("a", b"session").await.unwrap();

    servers.stop(Server::Postgres).await;
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move {
            let (body, session, saved, secret) = futures_util::join!(
                store.store_pending_inbound("c", "s", "M1", b"body"),
                store.get_session("a"),
                store.save(&device),
                store.put_msg_secret("c", "s", "M1", &[1; 32]),
            );
            saved.unwrap();
            secret.unwrap();
            body.unwrap();
            session.unwrap()
        })
    };
    // A flush of ratchets gives up: the library repeats it, and holds locks as long as it lasts.
    let moved = [("a".into(), Bytes::from_static(b"moved"))];
    assert!(store.put_sessions_batch(&moved).await.is_err());
    assert!(!waiting.is_finished());

    servers.resume(Server::Postgres).await;
    let session = waiting.await.unwrap();
    assert_eq!(session.as_deref(), Some(&b"session"[..]));
    let body = store.get_pending_inbound("c", "s", "M1").await.unwrap();
    assert_eq!(body.as_deref(), Some(&b"body"[..]));
    eventually(Duration::from_secs(10), async || {
        store.put_sessions_batch(&moved).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_written_though_nobody_waits_for_it_any_more() {
    let servers = Servers::start_only(Server::Postgres).await;
    let world = World::over(servers.database().await).await;
    let store = world.store().await;
    store.create().await.unwrap();
    servers.stop(Server::Postgres).await;
    {
        let mut call = std::pin::pin!(store.store_pending_inbound("c", "s", "M1", b"body"));
        assert!(futures_util::poll!(call.as_mut()).is_pending());
    }
    assert!(
        store.is_in_flight("c", "s", "M1"),
        "no copy is acknowledged"
    );
    servers.resume(Server::Postgres).await;
    eventually(Duration::from_secs(10), async || {
        let body = store.get_pending_inbound("c", "s", "M1").await;
        body.is_ok_and(|body| body.as_deref() == Some(&b"body"[..]))
    })
    .await;
}
