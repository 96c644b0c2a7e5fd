use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use domain::connection::{Code, Connection, Desired, Pairing, Status};
use domain::gateway::Gateway;
use domain::lease::{CONSTRAINT, Lease, Work, release};
use domain::statement::Statement;
use testkit::eventually;
use uuid::Uuid;

use crate::world::{NUMBER, World, connect};

const LIMIT: Duration = Duration::from_secs(20);

async fn gateway(conn: &mut AsyncPgConnection) -> Gateway {
    let gateway = Gateway {
        id: Uuid::new_v4(),
        name: "pod".to_owned(),
        capacity: 10,
        connect_rate: 5,
        sessions: 0,
        draining: false,
        lease_seconds: 60.0,
    };
    gateway.renew(conn).await.unwrap();
    gateway
}

async fn claim(conn: &mut AsyncPgConnection, gateway: &Gateway) -> Vec<Connection> {
    Connection::claim(conn, gateway.id, Work::Connect, 10)
        .await
        .unwrap()
}

async fn execute(conn: &mut AsyncPgConnection, sql: &str) {
    diesel::sql_query(sql).execute(conn).await.unwrap();
}

/// What the store's writes ask.
async fn stands(conn: &mut AsyncPgConnection, lease: Lease) -> QueryResult<usize> {
    Statement::new("SELECT lease_stands(?, ?)")
        .bind::<SqlUuid, _>(lease.connection_id)
        .bind::<BigInt, _>(lease.epoch)
        .execute(conn)
        .await
}

#[tokio::test]
async fn a_connection_has_one_owner_and_a_new_epoch_with_each() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (one, two) = (gateway(&mut conn).await, gateway(&mut conn).await);
    let claimed = claim(&mut conn, &one).await;
    let [first] = &claimed[..] else {
        panic!("{claimed:?}")
    };
    assert_eq!((first.owner, first.epoch), (Some(one.id), 1));
    assert!(claim(&mut conn, &two).await.is_empty());
    assert_eq!(Connection::free(&mut conn).await.unwrap(), 0);
    let held = Connection::held(&mut conn, one.id).await.unwrap();
    assert_eq!(held, claimed);

    assert_eq!(release(&mut conn, &[first.lease()]).await.unwrap(), 1);
    assert_eq!(Connection::free(&mut conn).await.unwrap(), 1);
    let second = &claim(&mut conn, &two).await[0];
    assert_eq!((second.owner, second.epoch), (Some(two.id), 2));
    assert_eq!(
        release(&mut conn, &[first.lease()]).await.unwrap(),
        0,
        "what one has no longer, one can't give up"
    );
}

#[tokio::test]
async fn who_was_turned_away_for_a_while_is_free_when_it_is_over_or_the_client_asks() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let gateway = gateway(&mut conn).await;
    let turn_away = async |conn: &mut AsyncPgConnection| {
        let lease = claim(conn, &gateway).await[0].lease();
        Connection::pause(conn, lease, "temporarily_banned", 60.0)
            .await
            .unwrap();
        release(conn, &[lease]).await.unwrap();
        assert_eq!(Connection::free(conn).await.unwrap(), 0);
        assert!(claim(conn, &gateway).await.is_empty());
    };
    turn_away(&mut conn).await;
    let row = Connection::find(&mut conn, world.connection.id).await;
    let row = row.unwrap().unwrap();
    assert_eq!(row.reason.as_deref(), Some("temporarily_banned"));
    assert!(row.is(Desired::Connected) && row.retry_at.is_some());
    let over = "UPDATE whatsapp_connections SET retry_at = now()";
    execute(&mut conn, over).await;
    assert_eq!(Connection::free(&mut conn).await.unwrap(), 1);

    turn_away(&mut conn).await;
    let (client, user) = (world.client.id, world.connection.user_id);
    let phone = NUMBER.parse().unwrap();
    let asked = Connection::connect(&mut conn, client, user, &phone, Pairing::Qr).await;
    assert_eq!(asked.unwrap().retry_at, None);
    assert_eq!(Connection::free(&mut conn).await.unwrap(), 1);

    turn_away(&mut conn).await;
    Connection::desire(&mut conn, client, user, Desired::Disconnected)
        .await
        .unwrap();
    let ended = Connection::claim(&mut conn, gateway.id, Work::End, 10).await;
    assert_eq!(ended.unwrap().len(), 1, "to end it nobody waits");
}

#[tokio::test]
async fn only_what_wants_an_owner_is_free() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let gateway = gateway(&mut conn).await;
    let (client, user) = (world.client.id, world.connection.user_id);
    let lease = claim(&mut conn, &gateway).await[0].lease();
    Connection::transition(&mut conn, lease, Status::LoggedOut, None)
        .await
        .unwrap();
    release(&mut conn, &[lease]).await.unwrap();
    assert_eq!(Connection::free(&mut conn).await.unwrap(), 0);

    Connection::connect(
        &mut conn,
        client,
        user,
        &NUMBER.parse().unwrap(),
        Pairing::Qr,
    )
    .await
    .unwrap();
    Connection::desire(&mut conn, client, user, Desired::Disconnected)
        .await
        .unwrap();
    assert!(claim(&mut conn, &gateway).await.is_empty());
    let settled = Connection::claim(&mut conn, gateway.id, Work::End, 10).await;
    let lease = settled.unwrap()[0].lease();
    Connection::fulfil(&mut conn, lease, Desired::Disconnected, None)
        .await
        .unwrap();
    release(&mut conn, &[lease]).await.unwrap();
    assert_eq!(Connection::free(&mut conn).await.unwrap(), 0);

    Connection::delete(&mut conn, client, lease.connection_id)
        .await
        .unwrap();
    let deleted = Connection::claim(&mut conn, gateway.id, Work::End, 10).await;
    let lease = deleted.unwrap()[0].lease();
    assert_eq!(Connection::remove(&mut conn, lease).await.unwrap(), 1);
}

#[tokio::test]
async fn who_lost_a_connection_writes_nothing_into_its_row() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (one, two) = (gateway(&mut conn).await, gateway(&mut conn).await);
    let stale = claim(&mut conn, &one).await[0].lease();
    release(&mut conn, &[stale]).await.unwrap();
    let before = claim(&mut conn, &two).await.remove(0);

    let told = Connection::transition(&mut conn, stale, Status::Disconnected, Some("replaced"));
    assert!(told.await.unwrap().is_empty());
    Connection::fulfil(&mut conn, stale, Desired::Connected, None)
        .await
        .unwrap();
    Connection::show_code(&mut conn, stale, Code::Qr("2@stale"), 20.0)
        .await
        .unwrap();
    Connection::identify(&mut conn, stale, "1:1@s.whatsapp.net", None)
        .await
        .unwrap();
    Connection::forget_device(&mut conn, stale).await.unwrap();
    Connection::remove(&mut conn, stale).await.unwrap();
    let after = Connection::find(&mut conn, stale.connection_id).await;
    assert_eq!(after.unwrap().unwrap(), before);
}

#[tokio::test]
async fn a_write_under_a_lost_lease_is_refused_by_name() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (one, two) = (gateway(&mut conn).await, gateway(&mut conn).await);
    let stale = claim(&mut conn, &one).await[0].lease();
    stands(&mut conn, stale).await.unwrap();
    release(&mut conn, &[stale]).await.unwrap();
    stands(&mut conn, stale).await.unwrap();
    let lease = claim(&mut conn, &two).await[0].lease();
    stands(&mut conn, lease).await.unwrap();
    let Err(diesel::result::Error::DatabaseError(kind, info)) = stands(&mut conn, stale).await
    else {
        panic!("it passed")
    };
    assert!(matches!(
        kind,
        diesel::result::DatabaseErrorKind::CheckViolation
    ));
    assert_eq!(info.constraint_name(), Some(CONSTRAINT));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_waits_for_what_its_last_owner_is_writing_and_what_comes_later_fails() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (one, two) = (gateway(&mut conn).await, gateway(&mut conn).await);
    let stale = claim(&mut conn, &one).await[0].lease();

    let mut writer = world.conn().await;
    execute(&mut writer, "BEGIN").await;
    stands(&mut writer, stale).await.unwrap();
    release(&mut conn, &[stale]).await.unwrap();
    let mut claimer = world.conn().await;
    let claiming = tokio::spawn(async move { claim(&mut claimer, &two).await.len() });
    #[derive(QueryableByName)]
    struct Waits {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }
    let waiting = "SELECT count(*) AS count FROM pg_locks
         WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let waits = async |conn: &mut AsyncPgConnection, count: i64| {
        eventually(LIMIT, async || {
            let now: Waits = diesel::sql_query(waiting).get_result(conn).await.unwrap();
            now.count == count
        })
        .await;
    };
    waits(&mut conn, 1).await;
    // This one begins before the claim is committed, and is let through after it.
    let mut late = world.conn().await;
    let late = tokio::spawn(async move { stands(&mut late, stale).await.is_err() });
    waits(&mut conn, 2).await;
    assert!(!claiming.is_finished());
    execute(&mut writer, "COMMIT").await;
    assert_eq!(claiming.await.unwrap(), 1);
    assert!(late.await.unwrap());
}

#[tokio::test]
async fn a_gateway_that_renews_no_more_loses_what_it_holds() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let mut own = world.conn().await;
    let dead = gateway(&mut own).await;
    let watcher = gateway(&mut conn).await;
    claim(&mut conn, &dead).await;
    let silent = |seconds: u32| {
        format!(
            "UPDATE whatsapp_gateways SET renewed_at = now() - interval '{seconds} seconds'
             WHERE id = '{}'",
            dead.id
        )
    };
    let live = async |conn: &mut AsyncPgConnection| Gateway::live(conn).await.unwrap().len();

    execute(&mut conn, &silent(50)).await;
    assert_eq!(Gateway::reap(&mut conn).await.unwrap(), 0);
    assert_eq!(live(&mut conn).await, 2, "its lease is of 60 s");
    execute(&mut conn, &silent(61)).await;
    assert_eq!(live(&mut conn).await, 1);
    assert_eq!(Gateway::reap(&mut conn).await.unwrap(), 1);
    assert_eq!(claim(&mut conn, &watcher).await.len(), 1);

    dead.renew(&mut own).await.unwrap();
    assert_eq!(live(&mut conn).await, 2, "it may begin anew");
    assert!(
        Connection::held(&mut conn, dead.id)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_gateway_whose_connection_is_gone_has_three_seconds() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let mut own = world.conn().await;
    let killed = gateway(&mut own).await;
    claim(&mut conn, &killed).await;
    drop(own);
    let gone = "SELECT count(*) FROM pg_stat_activity AS a JOIN whatsapp_gateways AS g
        ON a.pid = g.backend AND a.backend_start = g.backend_start";
    eventually(LIMIT, async || {
        diesel::dsl::sql::<BigInt>(gone)
            .get_result::<i64>(&mut conn)
            .await
            .unwrap()
            == 0
    })
    .await;
    let silent = |interval: &str| {
        format!("UPDATE whatsapp_gateways SET renewed_at = now() - interval '{interval}'")
    };
    execute(&mut conn, &silent("2 seconds")).await;
    assert_eq!(Gateway::reap(&mut conn).await.unwrap(), 0);
    execute(&mut conn, &silent("3.1 seconds")).await;
    assert_eq!(Gateway::reap(&mut conn).await.unwrap(), 1);
}

#[tokio::test]
async fn what_has_no_owner_for_long_does_not_go_on_saying_that_it_is_connected() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let gateway = gateway(&mut conn).await;
    let lease = claim(&mut conn, &gateway).await[0].lease();
    Connection::transition(&mut conn, lease, Status::Connected, None)
        .await
        .unwrap();
    Gateway::retire(&mut conn, gateway.id).await.unwrap();
    Connection::tell_abandoned(&mut conn, 60.0, 10)
        .await
        .unwrap();
    let status = async |conn: &mut AsyncPgConnection| {
        let row = Connection::find(conn, lease.connection_id).await;
        row.unwrap().unwrap().status
    };
    assert_eq!(status(&mut conn).await, "connected");
    Connection::tell_abandoned(&mut conn, 0.0, 10)
        .await
        .unwrap();
    assert_eq!(status(&mut conn).await, "reconnecting");
}

/// Two that claim at once share what there is.
#[tokio::test]
async fn two_claims_at_once_do_not_wait_for_each_other() {
    let world = World::new().await;
    let (mut one, mut two) = (world.conn().await, world.conn().await);
    let phone = "5511977776666".parse().unwrap();
    Connection::connect(
        &mut one,
        world.client.id,
        Uuid::new_v4(),
        &phone,
        Pairing::Qr,
    )
    .await
    .unwrap();
    let (a, b) = (gateway(&mut one).await, gateway(&mut one).await);
    one.transaction(async |one| {
        let first = Connection::claim(one, a.id, Work::Connect, 1).await?;
        let second = claim(&mut two, &b).await;
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_ne!(first[0].id, second[0].id);
        QueryResult::Ok(())
    })
    .await
    .unwrap();
}

/// Claims all that is free for a gateway whose connection is gone and that renewed so long ago.
async fn dead_since(world: &World, seconds: i64) -> Gateway {
    let mut own = world.conn().await;
    let dead = gateway(&mut own).await;
    claim(&mut own, &dead).await;
    execute(
        &mut own,
        &format!(
            "UPDATE whatsapp_gateways SET backend = 0,
                 renewed_at = now() - make_interval(secs => {seconds}) WHERE id = '{}'",
            dead.id
        ),
    )
    .await;
    dead
}

#[tokio::test]
async fn a_row_that_a_stopped_process_has_locked_holds_up_nothing_else() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    connect(&mut conn, world.client.id, "5511955554444").await;
    let dead = dead_since(&world, 60).await;
    let mut stopped = world.conn().await;
    execute(&mut stopped, "BEGIN").await;
    let lock = format!(
        "UPDATE whatsapp_connections SET lid = lid WHERE id = '{}'",
        world.connection.id
    );
    execute(&mut stopped, &lock).await;

    let reaped = tokio::time::timeout(LIMIT, Gateway::reap(&mut conn)).await;
    assert_eq!(reaped.unwrap().unwrap(), 1, "the other one");
    let held = Connection::held(&mut conn, dead.id).await.unwrap();
    assert_eq!(held[0].id, world.connection.id);
    assert_eq!(Gateway::reap(&mut conn).await.unwrap(), 0);

    drop(stopped);
    eventually(LIMIT, async || Gateway::reap(&mut conn).await.unwrap() == 1).await;
    assert_eq!(Connection::free(&mut conn).await.unwrap(), 2);
    assert!(Gateway::live(&mut conn).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_keep_a_dead_gateway_alive() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    dead_since(&world, -3600).await;
    assert_eq!(Gateway::reap(&mut conn).await.unwrap(), 1);
    dead_since(&world, -2).await;
    assert_eq!(
        Gateway::reap(&mut conn).await.unwrap(),
        0,
        "others' clocks are not that exact"
    );
}
