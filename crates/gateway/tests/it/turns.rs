//! One gateway at a time: the real binary, beside another, through restarts of PostgreSQL, to its end.

use std::collections::HashSet;

use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use domain::connection::Desired;
use serde_json::{Value, json};
use testkit::{Database, Process, Server, Servers, eventually};
use tokio::time::{Duration, Instant};

use crate::rig::{ANA, LIMIT, NUMBER, Rig, http};

/// The answer of `/readyz`: whether it is 200, and what it says.
async fn readiness(process: &Process) -> Option<(bool, Value)> {
    let url = format!("{}/readyz", process.url("OPS_PORT"));
    let answer = http().get(url).send().await.ok()?;
    let ready = answer.status().is_success();
    Some((ready, answer.json().await.ok()?))
}

#[derive(QueryableByName)]
struct Key {
    #[diesel(sql_type = BigInt)]
    key: i64,
}

async fn wait_for_check(process: &Process, check: &str, expected: &str) {
    eventually(LIMIT, async || match readiness(process).await {
        Some((_, report)) => {
            let said = report["checks"][check]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if said.contains(expected) {
                Ok(())
            } else {
                Err(report.to_string())
            }
        }
        None => Err("no answer".to_owned()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_waits_says_so_and_takes_over() {
    let rig = Rig::start().await;
    let mut first = rig.program().start().await;
    rig.link(NUMBER).await;
    let second = rig.program().without_readiness().start().await;
    wait_for_check(&second, "lock", "another gateway holds the sessions").await;

    assert!(first.stop().await.success(), "SIGTERM is a good end");
    wait_for_check(&second, "lock", "ok").await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "to the second"}))
        .await;
    rig.wait_for_rows(1).await;
    rig.wait_for_acks(NUMBER).await;
    assert_eq!(
        rig.accounts().await[0]["devices"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_postgresql_leaves_the_sessions_with_their_holder() {
    let servers = Servers::start().await;
    let rig = Rig::start_on(&servers).await;
    let mut first = rig.program().start().await;
    let linked = rig.link(NUMBER).await;
    let second = rig.program().without_readiness().start().await;
    wait_for_check(&second, "lock", "another gateway holds the sessions").await;

    for _ in 0..2 {
        servers.restart(Server::Postgres).await;
        rig.send(json!({"to": NUMBER, "from": ANA, "text": "hi", "count": 5}))
            .await;
        rig.wait_for_acks(NUMBER).await;
        wait_for_check(&first, "lock", "ok").await;
        wait_for_check(&second, "lock", "another gateway holds the sessions").await;
    }
    assert!(first.runs());
    assert_eq!(rig.rows().await.len(), 10);
    assert_eq!(rig.row(linked.id).await.transition, linked.transition);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_one_that_is_away() {
    let servers = Servers::start().await;
    let rig = Rig::start_on(&servers).await;
    let gateway = rig.program().start().await;
    rig.link(NUMBER).await;
    let name = rig.database.url().rsplit('/').next().unwrap().to_owned();
    let other = servers.database().await;
    let read_only = async |setting: &str| {
        let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = {setting}");
        other.connect().await.batch_execute(&set).await.unwrap();
    };
    // As a standby is, where a failover has led to one for a while.
    read_only("on").await;
    servers.restart(Server::Postgres).await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "hi", "count": 3}))
        .await;
    wait_for_check(&gateway, "lock", "does not allow writes").await;

    read_only("off").await;
    rig.wait_for_acks(NUMBER).await;
    assert_eq!(rig.rows().await.len(), 3);
    wait_for_check(&gateway, "lock", "ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_lost_its_turn_ends_at_once_and_acknowledges_nothing_more() {
    let rig = Rig::start().await;
    let mut gateway = rig.program().start().await;
    rig.link(NUMBER).await;
    let mut conn = rig.conn().await;
    let held = "FROM pg_locks WHERE locktype = 'advisory' AND database =
        (SELECT oid FROM pg_database WHERE datname = current_database())";
    let key = format!("SELECT classid::bigint << 32 | objid::bigint AS key {held}");
    let Key { key } = diesel::sql_query(key).get_result(&mut conn).await.unwrap();
    let mut usurper = rig.conn().await;
    let waiting = tokio::spawn(async move {
        let take = format!("SELECT pg_advisory_lock({key})");
        usurper.batch_execute(&take).await.unwrap();
        usurper
    });
    eventually(LIMIT, async || {
        let waits = format!("SELECT count(*) AS key {held} AND NOT granted");
        let waits: Key = diesel::sql_query(waits)
            .get_result(&mut conn)
            .await
            .unwrap();
        waits.key == 1
    })
    .await;
    let end = format!("SELECT pg_terminate_backend(pid) {held} AND granted");
    conn.batch_execute(&end).await.unwrap();
    let _usurper = waiting.await.unwrap();

    assert_eq!(gateway.wait().await.code(), Some(1));
    assert!(
        gateway
            .logs()
            .contains("another gateway has taken the sessions over")
    );
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "for the other"}))
        .await;
    assert!(rig.sent(NUMBER).await[0]["acked_at"].is_null());
    assert!(rig.rows().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_nothing_and_doubles_nothing() {
    let rig = Rig::start().await;
    let mut gateway = rig.program().start().await;
    rig.link(NUMBER).await;
    let ids = rig
        .send(json!({
            "to": NUMBER, "from": [ANA, "5511911113333"], "text": "hi", "count": 200, "rate": 100.0
        }))
        .await;
    rig.wait_for_rows(20).await;
    assert!(gateway.stop().await.success());
    let after = rig.rows().await.len();
    assert!(after < 200, "it was stopped in mid-stream");
    gateway.start_again().await;
    let rows = rig.wait_for_rows(200).await;
    rig.wait_for_acks(NUMBER).await;
    let received: HashSet<_> = rows.iter().map(|row| row.message_id.clone()).collect();
    assert_eq!(received, ids.into_iter().collect());
    assert_eq!(rig.rows().await.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_is_obeyed_while_postgresql_is_away() {
    let servers = Servers::start().await;
    let rig = Rig::start_on(&servers).await;
    let mut gateway = rig.program().start().await;
    rig.link(NUMBER).await;
    servers.stop(Server::Postgres).await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "hi", "count": 5}))
        .await;
    assert!(gateway.stop().await.success());
    assert!(
        rig.sent(NUMBER)
            .await
            .iter()
            .all(|message| message["acked_at"].is_null())
    );

    servers.resume(Server::Postgres).await;
    gateway.start_again().await;
    rig.wait_for_rows(5).await;
    rig.wait_for_acks(NUMBER).await;
    assert_eq!(rig.rows().await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_is_obeyed_while_postgresql_hangs() {
    let servers = Servers::start().await;
    let rig = Rig::start_on(&servers).await;
    let mut gateway = rig.program().start().await;
    rig.link(NUMBER).await;
    // Each commit hangs, as on a server whose disk does not answer.
    let mut blocker = rig.conn().await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE whatsapp_messages, whatsapp_connections")
        .await
        .unwrap();
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "hi", "count": 5}))
        .await;
    eventually(LIMIT, async || {
        let waits: Key =
            diesel::sql_query("SELECT count(*) AS key FROM pg_locks WHERE NOT granted")
                .get_result(&mut blocker)
                .await
                .unwrap();
        waits.key > 0
    })
    .await;
    let asked = Instant::now();
    assert!(gateway.stop().await.success(), "{}", gateway.logs());
    assert!(asked.elapsed() < Duration::from_secs(20));

    drop(blocker);
    gateway.start_again().await;
    rig.wait_for_rows(5).await;
    rig.wait_for_acks(NUMBER).await;
    assert_eq!(rig.rows().await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_a_gateway_loses_nothing_and_doubles_nothing() {
    let rig = Rig::start().await;
    let mut gateway = rig.program().start().await;
    let numbers: Vec<String> = (0..5).map(|turn| format!("551198888000{turn}")).collect();
    for number in &numbers {
        rig.link(number).await;
    }
    let mut ids = HashSet::new();
    for number in &numbers {
        let message = json!({"to": number, "from": [ANA, "5511911113333"], "text": "hi",
            "count": 100, "rate": 30.0});
        ids.extend(rig.send(message).await);
    }
    for rows in [50, 150, 300] {
        rig.wait_for_rows(rows).await;
        gateway.kill().await;
        gateway.start_again().await;
    }
    rig.wait_for_rows(500).await;
    for number in &numbers {
        rig.wait_for_acks(number).await;
    }
    let rows = rig.rows().await;
    let received: HashSet<_> = rows.iter().map(|row| row.message_id.clone()).collect();
    assert_eq!(received, ids);
    let odd: Vec<_> = rows
        .iter()
        .filter(|row| row.event_type != "message")
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert_eq!(rows.len(), 500);
    let logs = gateway.logs();
    let told = logs
        .lines()
        .find(|line| line.contains(ANA) || numbers.iter().any(|number| line.contains(number)));
    assert_eq!(told, None, "no phone number is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_turn_is_long_in_coming_does_not_go_on_saying_that_it_is_connected() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["connection.*"]).await;
    let mut gateway = rig.program().start().await;
    rig.link("5511988880001").await;
    let second = rig.link(NUMBER).await;
    gateway.stop().await;
    drop(gateway);

    let program = rig.program().env("GATEWAY_CAPACITY", "1");
    let _gateway = program.start().await;
    let row = rig.wait_for(second.id, "reconnecting").await;
    assert_eq!(row.reason.as_deref(), Some("connection_lost"));
    let events = rig.events(&webhook).await;
    assert_eq!(events.last().unwrap().event_type, "connection.closed");

    // Nor does it wait for a place that never comes, to be ended.
    rig.desire(&second, Desired::Disconnected).await;
    rig.wait_for(second.id, "disconnected").await;
    rig.desire(&second, Desired::LoggedOut).await;
    rig.wait_for(second.id, "logged_out").await;
    assert_eq!(rig.count("protocol_devices").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_waits_for_its_database_and_says_what_it_lacks() {
    let servers = Servers::start().await;
    let rig = Rig::start_on(&servers).await;
    servers.stop(Server::Postgres).await;
    let gateway = rig.program().without_readiness().start().await;
    wait_for_check(&gateway, "postgres", "c").await;
    let (ready, report) = readiness(&gateway).await.unwrap();
    assert!(!ready && report["checks"]["postgres"] != "ok", "{report}");
    servers.resume(Server::Postgres).await;
    wait_for_check(&gateway, "lock", "ok").await;

    let empty = Database::create_empty().await;
    let program = rig.program().env("DATABASE_URL", empty.url());
    let gateway = program.without_readiness().start().await;
    wait_for_check(&gateway, "schema", "run `recado-api migrate`").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_variable_is_one_line_and_exit_64() {
    let rig = Rig::start().await;
    for (variable, value) in [
        ("WHATSAPP_URL", "https://web.whatsapp.com"),
        ("WHATSAPP_VERSION", "newest"),
        ("GATEWAY_CAPACITY", "many"),
        ("ENCRYPTION_KEYS", "a:b"),
        ("DATABASE_URL", "mysql://h/d"),
    ] {
        let output = rig
            .program()
            .without_readiness()
            .env(variable, value)
            .run()
            .await;
        assert_eq!(output.status.code(), Some(64), "{variable}");
        assert!(output.stderr.contains(variable), "{}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    }
}
