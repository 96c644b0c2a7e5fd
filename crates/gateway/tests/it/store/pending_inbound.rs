use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use diesel::sql_types::{BigInt, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use gateway::hold::Hold;
use gateway::store::delete_device;
use gateway::store::inflight::{Key, Registry};
use gateway::store::pending_inbound::Earlier;
use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::wacore::store::error::StoreError;
use whatsapp_rust::wacore::store::traits::{ProtocolStore, SignalStore};
use whatsapp_rust::wacore::time::now_secs;

use super::world::{World, unclaimed};

const CHAT: &str = "1@s.whatsapp.net";

#[tokio::test]
async fn a_duplicate_of_a_committed_message_is_acknowledged() {
    let world = World::new().await;
    world.commit("M1").await;
    let found = world
        .store()
        .await
        .get_pending_inbound(CHAT, CHAT, "M1")
        .await;
    assert_eq!(found.unwrap(), None);
    assert!(world.lost.taken().is_empty());
}

#[tokio::test]
async fn a_message_of_the_same_id_in_another_chat_does_not_stand_for_it() {
    const OTHER: &str = "3@g.us";
    let world = World::new().await;
    let store = world.store().await;
    let before = Instant::now();
    store
        .store_pending_inbound(OTHER, CHAT, "M1", b"body")
        .await
        .unwrap();
    world.commit("M1").await;
    store
        .delete_expired_pending_inbound(now_secs() + 60)
        .await
        .unwrap();
    let kept = store.get_pending_inbound(OTHER, CHAT, "M1").await.unwrap();
    assert_eq!(kept.as_deref(), Some(&b"body"[..]));
    assert_eq!(
        store
            .earlier("4@g.us", CHAT, "M1", Instant::now())
            .await
            .unwrap(),
        Earlier::Unread
    );
    assert_eq!(
        store
            .earlier(CHAT, CHAT, "M1", Instant::now())
            .await
            .unwrap(),
        Earlier::Settled
    );
    // One that came later is not an earlier copy.
    for chat in [CHAT, OTHER] {
        let earlier = store.earlier(chat, CHAT, "M1", before).await.unwrap();
        assert_eq!(earlier, Earlier::Unread);
    }
}

#[tokio::test]
async fn a_duplicate_of_a_message_in_flight_is_not_acknowledged() {
    let world = World::new().await;
    let store = world.store().await;
    let flight = world
        .inflight
        .enter(world.connection_id, vec![Key::new(CHAT, CHAT, "M1")]);
    assert!(store.get_pending_inbound(CHAT, CHAT, "M1").await.is_err());
    assert!(world.lost.taken().is_empty());
    world.commit("M1").await;
    drop(flight);
    let found = store.get_pending_inbound(CHAT, CHAT, "M1").await.unwrap();
    assert_eq!(found, None);
    assert!(world.lost.taken().is_empty());
}

#[tokio::test]
async fn a_lost_body_is_reported_once_and_then_acknowledged() {
    let world = World::new().await;
    let store = world.store().await;
    world.lost.refuse(true);
    assert!(
        store
            .get_pending_inbound(CHAT, "2@lid", "M1")
            .await
            .is_err()
    );
    world.lost.refuse(false);
    for _ in 0..2 {
        let found = store.get_pending_inbound(CHAT, "2@lid", "M1").await;
        assert_eq!(found.unwrap(), None);
    }
    let expected = format!("{} {CHAT} 2@lid M1", world.connection_id);
    assert_eq!(world.lost.taken(), [expected]);
}

#[tokio::test]
async fn an_undecryptable_event_does_not_stand_for_its_message() {
    let world = World::new().await;
    world.commit("M1").await;
    let relabel = "UPDATE whatsapp_messages SET event_type = 'message.undecryptable'";
    sql_query(relabel)
        .execute(&mut world.database.connect().await)
        .await
        .unwrap();
    let found = world
        .store()
        .await
        .get_pending_inbound(CHAT, CHAT, "M1")
        .await;
    assert_eq!(found.unwrap(), None);
    assert_eq!(world.lost.taken().len(), 1);
}

#[tokio::test]
async fn what_the_hook_left_out_counts_as_settled_after_a_restart_too() {
    let world = World::new().await;
    let store = world.store().await;
    for id in ["PEER", "M1"] {
        store
            .store_pending_inbound(CHAT, CHAT, id, b"body")
            .await
            .unwrap();
    }
    world
        .inflight
        .leave_out(world.connection_id, Key::new(CHAT, CHAT, "PEER"));
    store
        .delete_pending_inbound(CHAT, CHAT, "PEER")
        .await
        .unwrap();
    assert!(!world.dump().await["protocol_pending_inbound"].is_empty());

    let restarted = World {
        inflight: Arc::new(Registry::default()),
        ..world
    };
    let store = restarted.store().await;
    let found = store.get_pending_inbound(CHAT, CHAT, "PEER").await;
    assert_eq!(found.unwrap(), None);
    assert!(restarted.lost.taken().is_empty());
    let other = store.get_pending_inbound(CHAT, CHAT, "M1").await.unwrap();
    assert_eq!(other.as_deref(), Some(&b"body"[..]));
}

#[tokio::test]
async fn a_message_that_comes_readable_after_all_is_kept_again() {
    let world = World::new().await;
    let store = world.store().await;
    store.get_pending_inbound(CHAT, CHAT, "M1").await.unwrap();
    store
        .store_pending_inbound(CHAT, CHAT, "M1", b"resent")
        .await
        .unwrap();
    let found = store.get_pending_inbound(CHAT, CHAT, "M1").await.unwrap();
    assert_eq!(found.as_deref(), Some(&b"resent"[..]));
}

#[tokio::test]
async fn bodies_age_out_only_when_nobody_waits_for_them() {
    let world = World::new().await;
    let store = world.store().await;
    for id in ["COMMITTED", "WAITING"] {
        store
            .store_pending_inbound(CHAT, CHAT, id, b"body")
            .await
            .unwrap();
    }
    world.commit("COMMITTED").await;
    store.get_pending_inbound(CHAT, CHAT, "LOST").await.unwrap();

    let early = store.delete_expired_pending_inbound(now_secs() - 60).await;
    assert_eq!(early.unwrap(), 0);
    let late = store.delete_expired_pending_inbound(now_secs() + 60).await;
    assert_eq!(late.unwrap(), 2);
    let rows = &world.dump().await["protocol_pending_inbound"];
    assert!(rows.contains("WAITING") && !rows.contains("COMMITTED"));
}

#[tokio::test]
async fn no_id_however_strange_keeps_a_body_from_being_stored() {
    let world = World::new().await;
    let store = world.store().await;
    let long = "x".repeat(60_000);
    for id in ["", "with\0nul", "with\u{fffd}nul", &long] {
        let body = format!("the body of {id:.20}");
        store
            .store_pending_inbound("c\0", "s\0", id, body.as_bytes())
            .await
            .unwrap();
        let found = store.get_pending_inbound("c\0", "s\0", id).await.unwrap();
        assert_eq!(found.as_deref(), Some(body.as_bytes()));
    }
}

#[tokio::test]
async fn a_strange_id_is_found_under_the_form_in_which_it_is_committed() {
    let world = World::new().await;
    let store = world.store().await;
    let long = "x".repeat(60_000);
    for (id, committed) in [("with\0nul", "with\u{fffd}nul"), (&long, &long[..512])] {
        world.commit(committed).await;
        let found = store.get_pending_inbound(CHAT, CHAT, id).await.unwrap();
        assert_eq!(found, None);
    }
    assert!(world.lost.taken().is_empty());
}

#[tokio::test]
async fn a_body_for_a_deleted_device_is_refused() {
    let world = World::new().await;
    let store = world.store().await;
    delete_device(
        &mut world.database.connect().await,
        unclaimed(world.connection_id),
    )
    .await
    .unwrap();
    let stored = store.store_pending_inbound(CHAT, CHAT, "M1", b"body").await;
    assert!(matches!(stored, Err(StoreError::DeviceNotFound(_))));
}

#[tokio::test]
async fn ratchets_become_durable_after_the_rows_of_the_messages_that_moved_them() {
    let world = World::new().await;
    let (store, other) = (
        world.store().await,
        world.store_of(world.another_connection().await).await,
    );
    let flight = world
        .inflight
        .enter(world.connection_id, vec![Key::new(CHAT, CHAT, "M1")]);
    let row = [("a".into(), Bytes::from_static(b"moved"))];
    let mut sessions = store.put_sessions_batch(&row);
    let mut sender_keys = store.put_sender_keys_batch(&row);
    // Another connection's do not wait; that they are done gives these the time to be done too soon.
    other.put_sessions_batch(&row).await.unwrap();
    assert!(matches!(futures_util::poll!(&mut sessions), Poll::Pending));
    assert!(matches!(
        futures_util::poll!(&mut sender_keys),
        Poll::Pending
    ));
    other.put_sender_keys_batch(&row).await.unwrap();
    assert_eq!(store.get_session("a").await.unwrap(), None);
    assert_eq!(store.get_sender_key("a").await.unwrap(), None);

    drop(flight);
    sessions.await.unwrap();
    sender_keys.await.unwrap();
    let found = store.get_session("a").await.unwrap();
    assert_eq!(found.as_deref(), Some(&b"moved"[..]));
}

#[tokio::test]
async fn a_batch_is_one_statement_prepared_once_whatever_its_size() {
    #[derive(QueryableByName)]
    struct Prepared {
        #[diesel(sql_type = Text)]
        statement: String,
        #[diesel(sql_type = BigInt)]
        calls: i64,
    }
    let world = World::new().await;
    // One connection, so that all is prepared on it.
    let mut config = world.database.config();
    config.pool_size = 1;
    let pool = runtime::postgres::pool(&config).unwrap();
    let mut shelf = world.shelf();
    shelf.pool = pool.clone();
    let device_id = world.store().await.device_id();
    let store =
        gateway::store::Store::new(shelf, Hold::new(unclaimed(world.connection_id)), device_id);
    for size in [1_u32, 30, 812] {
        let keys: Vec<_> = (1..=size)
            .map(|id| (id, Bytes::from_static(b"k")))
            .collect();
        let ids: Vec<u32> = (1..=size).collect();
        store.store_prekeys_batch(&keys, false).await.unwrap();
        store.load_prekeys_batch(&ids).await.unwrap();
        store.mark_prekeys_uploaded(&ids).await.unwrap();
    }
    let prepared: Vec<Prepared> = sql_query(
        "SELECT statement, generic_plans + custom_plans AS calls FROM pg_prepared_statements
         WHERE statement LIKE '%protocol_prekeys%' AND statement NOT LIKE '%pg_prepared%'",
    )
    .load(&mut pool.get().await.unwrap())
    .await
    .unwrap();
    let texts: Vec<&str> = prepared.iter().map(|one| &*one.statement).collect();
    assert_eq!(texts.len(), 3, "{texts:#?}");
    for one in prepared {
        assert_eq!(one.calls, 3, "{}", one.statement);
    }
}
