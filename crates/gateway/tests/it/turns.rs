//! Gateways that share the sessions: the real binary, beside another, through restarts of PostgreSQL, to its end.

use std::collections::HashSet;

use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl as _;
use diesel_async::SimpleAsyncConnection;
use domain::connection::{Connection, Desired};
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
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
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

/// How many connections each gateway holds, those without an owner last.
async fn holdings(rig: &Rig) -> Vec<i64> {
    let held = "SELECT count(*) AS count FROM whatsapp_connections GROUP BY owner
        ORDER BY owner IS NULL, count";
    let rows: Vec<Count> = diesel::sql_query(held)
        .load(&mut rig.conn().await)
        .await
        .unwrap();
    rows.into_iter().map(|row| row.count).collect()
}

async fn link_many(rig: &Rig, count: usize) -> Vec<(String, Connection)> {
    let mut all = Vec::new();
    for turn in 0..count {
        let number = format!("55119888800{turn:02}");
        let connection = rig.link(&number).await;
        all.push((number, connection));
    }
    all
}

/// Each session receives, and none was ever replaced.
async fn all_receive(rig: &Rig, all: &[(String, Connection)]) {
    let before = rig.rows().await.len();
    for (number, _) in all {
        rig.send(json!({"to": number, "from": ANA, "text": "hi"}))
            .await;
    }
    let rows = rig.wait_for_rows(before + all.len()).await;
    for (number, connection) in all {
        rig.wait_for_acks(number).await;
        let row = rig.wait_for(connection.id, "connected").await;
        assert_ne!(row.reason.as_deref(), Some("replaced"));
    }
    let odd = rows.iter().find(|row| row.event_type != "message");
    assert_eq!(odd, None);
    let accounts = rig.accounts().await;
    let devices = accounts
        .iter()
        .flat_map(|account| account["devices"].as_array().unwrap());
    assert_eq!(devices.count(), all.len(), "none was linked anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_joins_is_given_its_share_and_takes_the_rest_when_the_other_ends() {
    let rig = Rig::start().await;
    let mut first = rig.program().start().await;
    let all = link_many(&rig, 6).await;
    assert_eq!(holdings(&rig).await, [6]);

    let second = rig.program().start().await;
    eventually(LIMIT, async || match &holdings(&rig).await[..] {
        [3, 3] => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    all_receive(&rig, &all).await;

    assert!(first.stop().await.success(), "SIGTERM is a good end");
    assert_eq!(holdings(&rig).await.iter().sum::<i64>(), 6);
    eventually(LIMIT, async || holdings(&rig).await == [6]).await;
    all_receive(&rig, &all).await;
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_held_is_soon_with_the_other() {
    let rig = Rig::start().await;
    let mut first = rig.program().start().await;
    let all = link_many(&rig, 4).await;
    let _second = rig.program().start().await;
    first.kill().await;
    let killed = Instant::now();
    eventually(LIMIT, async || {
        let rows = rig.row(all[0].1.id).await;
        rows.epoch == 2
    })
    .await;
    assert!(
        killed.elapsed() < Duration::from_secs(10),
        "a lease is 15 s"
    );
    all_receive(&rig, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_wakes_up_late_writes_nothing_and_stays_away() {
    let rig = Rig::start().await;
    let program = || rig.program().env("GATEWAY_LEASE_SECONDS", 5);
    let mut first = program().start().await;
    let all = link_many(&rig, 2).await;
    first.freeze().await;
    let mut second = program().start().await;
    eventually(LIMIT, async || {
        let rows = [rig.row(all[0].1.id).await, rig.row(all[1].1.id).await];
        rows.iter().all(|row| row.epoch == 2)
    })
    .await;
    all_receive(&rig, &all).await;
    let before = rig.row(all[0].1.id).await;

    first.thaw();
    eventually(LIMIT, async || {
        first
            .logs()
            .matches("another gateway has taken a session over")
            .count()
            == 2
    })
    .await;
    all_receive(&rig, &all).await;
    let after = rig.row(all[0].1.id).await;
    assert_eq!(
        (after.owner, after.epoch, after.transition),
        (before.owner, before.epoch, before.transition)
    );
    assert!(second.runs() && first.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_postgresql_leaves_the_sessions_with_their_holder() {
    let servers = Servers::start().await;
    let rig = Rig::start_on(&servers).await;
    let first = rig.program().start().await;
    let linked = rig.link(NUMBER).await;
    let second = rig.program().start().await;

    for _ in 0..2 {
        servers.restart(Server::Postgres).await;
        rig.send(json!({"to": NUMBER, "from": ANA, "text": "hi", "count": 5}))
            .await;
        rig.wait_for_acks(NUMBER).await;
        for gateway in [&first, &second] {
            wait_for_check(gateway, "lease", "ok").await;
        }
    }
    assert_eq!(rig.rows().await.len(), 10);
    let row = rig.row(linked.id).await;
    assert_eq!(
        (row.transition, row.epoch),
        (linked.transition, linked.epoch)
    );
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
    wait_for_check(&gateway, "lease", "does not allow writes").await;

    read_only("off").await;
    rig.wait_for_acks(NUMBER).await;
    assert_eq!(rig.rows().await.len(), 3);
    wait_for_check(&gateway, "lease", "ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_epoch_is_past_ends_at_once_and_acknowledges_nothing_more() {
    let rig = Rig::start().await;
    let gateway = rig.program().start().await;
    let linked = rig.link(NUMBER).await;
    rig.run_sql(
        "INSERT INTO whatsapp_gateways (id, name, capacity, connect_rate, sessions, draining,
             lease_seconds, backend, backend_start)
         SELECT gen_random_uuid(), 'other', 1, 1, 1, false, 600, pid, backend_start
         FROM pg_stat_activity WHERE backend_type = 'checkpointer'",
    )
    .await;
    let renewed = "UPDATE whatsapp_gateways SET renewed_at = now() + interval '10 minutes'
        WHERE name = 'other'";
    rig.run_sql(renewed).await;
    let claimed = "UPDATE whatsapp_connections SET epoch = epoch + 1,
        owner = (SELECT id FROM whatsapp_gateways WHERE name = 'other')";
    rig.run_sql(claimed).await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "for the other"}))
        .await;
    eventually(LIMIT, async || {
        let accounts = rig.accounts().await;
        accounts[0]["online"] == false
    })
    .await;
    assert!(rig.sent(NUMBER).await[0]["acked_at"].is_null());
    assert!(rig.rows().await.is_empty());
    let row = rig.row(linked.id).await;
    assert_eq!(row.transition, linked.transition);
    assert!(
        gateway
            .logs()
            .contains("another gateway has taken a session over")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_and_claimed_anew_in_one_moment_has_one_session() {
    let rig = Rig::start().await;
    let gateway = rig.program().start().await;
    let linked = rig.link(NUMBER).await;
    for epoch in 2..5 {
        // As another gateway does that takes this one for dead; nobody else is there to claim it.
        rig.run_sql("UPDATE whatsapp_connections SET owner = NULL")
            .await;
        eventually(LIMIT, async || {
            let row = rig.row(linked.id).await;
            row.epoch == epoch && row.owner.is_some()
        })
        .await;
        all_receive(&rig, &[(NUMBER.to_owned(), linked.clone())]).await;
    }
    let row = rig.row(linked.id).await;
    assert_eq!(
        (row.status.as_str(), row.transition),
        ("connected", linked.transition),
        "no session has failed: {}",
        gateway.logs()
    );
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
        let waits = "SELECT count(*) AS count FROM pg_locks WHERE NOT granted";
        let waits: Count = diesel::sql_query(waits)
            .get_result(&mut blocker)
            .await
            .unwrap();
        waits.count > 0
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
    wait_for_check(&gateway, "lease", "ok").await;

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

#[tokio::test(flavor = "multi_thread")]
async fn sessions_whose_turn_is_far_away_come_back_when_it_comes_or_are_unlinked_then() {
    let rig = Rig::start().await;
    let fast = rig.gateway();
    let mut all = link_many(&rig, 20).await;
    fast.stop().await;
    // The last ones' turn is further away than a session waits for.
    let slow = rig.gateway_with(&[("GATEWAY_CONNECT_RATE", "1")]);
    for (number, _) in &all {
        eventually(2 * LIMIT, async || rig.is_online(number).await).await;
    }
    for (number, _) in &all {
        let path = format!("/admin/accounts/{number}/disconnect");
        rig.post(&path, String::new()).await;
    }
    let leaving = all.split_off(16);
    for (_, connection) in &leaving {
        rig.desire(connection, Desired::LoggedOut).await;
    }
    for (number, _) in &all {
        eventually(2 * LIMIT, async || rig.is_online(number).await).await;
    }
    for (_, connection) in &leaving {
        let row = rig.wait_for(connection.id, "logged_out").await;
        assert_eq!(row.reason, None, "WhatsApp knows of it");
    }
    all_receive(&rig, &all).await;
    slow.stop().await;
}
