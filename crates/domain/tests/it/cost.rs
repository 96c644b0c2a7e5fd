//! What the poller reads when very much waits: no more than when nothing does.

use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use domain::claim::{Release, claim, claim_due, claim_probes, put_off, release};
use domain::parking::{park_followers, release_parked, set_aside};
use domain::partition::maintain;
use domain::record::{Outcome, Record, record};
use domain::replay::{Deletion, Events, Letters, Settled, Step};
use domain::span::Span;
use domain::statement::Statement;
use domain::stats::Stats;
use domain::verify::violations;
use uuid::Uuid;

use crate::world::{self, World};

/// Rows that this transaction has read of the events, live or not, in whatever way.
async fn rows_read(conn: &mut AsyncPgConnection) -> i64 {
    #[derive(QueryableByName)]
    struct Read {
        #[diesel(sql_type = BigInt)]
        rows: i64,
    }
    let read: Read = Statement::new(
        "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint AS rows
         FROM pg_stat_xact_user_tables WHERE relname LIKE 'whatsapp_webhook_events%'",
    )
    .get_result(conn)
    .await
    .unwrap();
    read.rows
}

/// One poll of a dispatcher with room for a hundred, and a ring; the rows that it reads, and what it claims.
async fn poll(world: &World, rung: &[Uuid]) -> (i64, usize) {
    let mut conn = world.conn().await;
    conn.transaction(async |conn| {
        let mut claimed = claim_probes(conn, 100, Uuid::new_v4(), 60.0).await?.len();
        release_parked(conn, 100).await?;
        claimed += claim(conn, rung, Uuid::new_v4(), 60.0).await?.len();
        claimed += claim_due(conn, 100, Uuid::new_v4(), 60.0).await?.len();
        set_aside(conn, 100).await?;
        park_followers(conn, 100).await?;
        put_off(conn, 100, 60.0).await?;
        diesel::QueryResult::Ok((rows_read(conn).await, claimed))
    })
    .await
    .unwrap()
}

/// Half of what waits belongs to an open circuit, a quarter each to an inactive webhook and to one that takes a
/// few at a time.
async fn seed(world: &World, events: usize) {
    world
        .sql(&format!(
            r#"INSERT INTO whatsapp_webhooks (id, client_id, phone_number, phone_key, webhook_url, secret, status,
                   opened_at, is_active, rate_limit_per_second, look_at)
               VALUES ('00000000-0000-0000-0000-000000000000', 1, '1', '1', '', '', 'failed', now(), true, NULL,
                       now() + interval '1 h'),
                   ('00000000-0000-0000-0000-000000000001', 1, '2', '2', '', '', 'active', NULL, false, NULL, NULL),
                   ('00000000-0000-0000-0000-000000000002', 1, '3', '3', '', '', 'active', NULL, true, 8,
                       now() + interval '1 h');
               INSERT INTO whatsapp_webhook_events (id, client_id, webhook_id, source_id, event_type,
                   message_id, chat, "from", "to", message_type, content, metadata, "timestamp", parked)
               SELECT gen_random_uuid(), 1, ('00000000-0000-0000-0000-00000000000' || greatest(n % 4 - 1, 0))::uuid,
                   gen_random_uuid(), 'message', 'P' || n, 'chat', '', '', 'text', '', '{{}}', now(),
                   'circuit_open'
               FROM generate_series(1, {events}) AS n;"#
        ))
        .await;
    world
        .sql("VACUUM ANALYZE whatsapp_webhook_events, whatsapp_webhooks")
        .await;
}

#[tokio::test]
async fn a_poll_reads_no_more_rows_when_very_many_events_are_parked() {
    let world = World::new().await;
    let quiet = world.accept(&["A", "B"]).await;
    let (before, claimed) = poll(&world, &quiet).await;
    assert_eq!(claimed, 2);

    seed(&world, 200_000).await;
    let rung = world.accept(&["C", "D"]).await;
    let (behind, claimed) = poll(&world, &rung).await;
    assert_eq!(claimed, 2);
    assert!(behind <= before + 10, "{behind} rows instead of {before}");

    // A probe and a step of the release, out of very many.
    world.look_now().await;
    let (looked, claimed) = poll(&world, &[]).await;
    assert_eq!(claimed, 3, "the probe, and a step of two");
    assert!(looked <= before + 60, "{looked} rows instead of {before}");
    // What has just been looked at is not looked at again.
    let (after, _) = poll(&world, &[]).await;
    assert!(after <= before + 10, "{after} rows instead of {before}");
}

/// What PostgreSQL knows of its tables may be from a time in which nothing waited.
#[tokio::test]
async fn a_ring_reads_no_more_rows_when_very_many_events_wait_for_their_time() {
    let world = World::new().await;
    maintain(&mut world.conn().await, chrono::Utc::now(), None)
        .await
        .unwrap();
    let names: Vec<String> = (0..4000).map(|n| format!("M{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.accept(&names).await;
    let set = |what: &str| format!("UPDATE whatsapp_webhook_events SET {what}");
    world
        .sql(&set("status = 'delivered', next_retry_at = NULL"))
        .await;
    world.sql("VACUUM ANALYZE whatsapp_webhook_events").await;
    let retries = "status = 'pending', attempt_count = 1, next_retry_at = now() + interval '1 h'";
    world.sql(&set(retries)).await;

    let rung = world.accept(&["A"]).await;
    let mut conn = world.conn().await;
    let (claimed, read) = conn
        .transaction(async |conn| {
            let claimed = claim(conn, &rung, Uuid::new_v4(), 60.0).await?;
            diesel::QueryResult::Ok((claimed.len(), rows_read(conn).await))
        })
        .await
        .unwrap();
    assert_eq!(claimed, 1);
    assert!(read < 20, "{read} rows to claim one");
}

/// A join of a hundred rows with a month of partitions tempts PostgreSQL to read them all.
#[tokio::test]
async fn a_poll_that_finds_much_to_do_reads_that_and_no_more() {
    let world = World::new().await;
    for days in [4, 9, 14, 19, 24, 29] {
        let day = chrono::Utc::now() - chrono::Days::new(days);
        maintain(&mut world.conn().await, day, None).await.unwrap();
    }
    seed(&world, 200_000).await;
    let set_so_many = |what: &str, count: u32| {
        format!(
            "UPDATE whatsapp_webhook_events SET {what}, next_retry_at = now() - interval '1 s', parked = NULL
             WHERE id IN (SELECT id FROM whatsapp_webhook_events WHERE parked IS NOT NULL LIMIT {count})"
        )
    };
    let set = |what: &str| set_so_many(what, 100);
    world
        .sql(&set(&format!("webhook_id = '{}'", world.webhook.id)))
        .await;
    // Nothing of it is parked any more, which is for a look to find out.
    let looked_at = "UPDATE whatsapp_webhooks SET look_at = now() WHERE webhook_url <> ''";
    world.sql(looked_at).await;
    let (read, claimed) = poll(&world, &[]).await;
    assert_eq!(claimed, 100);
    assert!(read < 1000, "{read} rows to claim 100");

    world
        .sql(&set("webhook_id = '00000000-0000-0000-0000-000000000000'"))
        .await;
    let (read, claimed) = poll(&world, &[]).await;
    assert_eq!(claimed, 0);
    assert!(read < 1500, "{read} rows to set 100 aside");

    let ordered = "UPDATE whatsapp_webhooks SET ordered = true WHERE webhook_url <> ''";
    world.sql(ordered).await;
    let ours = format!("webhook_id = '{}', order_key = 'chat'", world.webhook.id);
    world.sql(&set(&ours)).await;
    let (read, claimed) = poll(&world, &[]).await;
    assert_eq!(claimed, 1);
    assert!(
        read < 2500,
        "{read} rows to claim one and park 99 behind it"
    );

    // Twice a hundred events of which nobody is to be sent anything, when very many have become due.
    world
        .sql("UPDATE whatsapp_webhooks SET ordered = false")
        .await;
    let closed = "webhook_id = '00000000-0000-0000-0000-000000000000'";
    world.sql(&set_so_many(closed, 50_000)).await;
    world.sql("VACUUM ANALYZE whatsapp_webhook_events").await;
    for _ in 0..2 {
        let (read, claimed) = poll(&world, &[]).await;
        assert_eq!(claimed, 0);
        assert!(read < 1500, "{read} rows to set 100 of 50,000 aside");
    }
}

#[tokio::test]
async fn recording_and_giving_back_read_what_they_are_about_and_no_more() {
    let world = World::new().await;
    maintain(&mut world.conn().await, chrono::Utc::now(), None)
        .await
        .unwrap();
    seed(&world, 60_000).await;
    let names: Vec<String> = (0..200).map(|n| format!("M{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let ids = world.accept(&names).await;
    let token = Uuid::new_v4();
    let mut conn = world.conn().await;
    let claimed = claim(&mut conn, &ids, token, 60.0).await.unwrap();
    let (recorded, given_back) = claimed.split_at(100);
    let records: Vec<Record> = recorded
        .iter()
        .map(|claimed| world::record(claimed, token, Outcome::Delivered))
        .collect();
    let releases: Vec<Release> = given_back
        .iter()
        .map(|claimed| Release {
            event_id: claimed.id,
            webhook_id: claimed.webhook_id,
            token,
            delay_seconds: 1.0,
            park: None,
        })
        .collect();
    let read = conn
        .transaction(async |conn| {
            record(conn, &records).await?;
            release(conn, &releases).await?;
            diesel::QueryResult::Ok(rows_read(conn).await)
        })
        .await
        .unwrap();
    assert!(read < 1500, "{read} rows");
}

#[tokio::test]
async fn retention_reads_of_what_it_keeps_no_row() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    maintain(&mut conn, chrono::Utc::now(), None).await.unwrap();
    seed(&world, 50_000).await;
    // Of today, whether delivered or not.
    let today = "UPDATE whatsapp_webhook_events SET parked = NULL, status = 'delivered',
        id = (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || substr(replace(id::text, '-', ''), 13))::uuid
        WHERE parked IS NOT NULL";
    world.sql(today).await;
    world.sql("VACUUM ANALYZE whatsapp_webhook_events").await;
    let in_default = "SELECT count(*) AS count FROM whatsapp_webhook_events_default";
    assert_eq!(world.count(in_default).await, 0);
    let read = conn
        .transaction(async |conn| {
            maintain(conn, chrono::Utc::now(), Some(7)).await?;
            diesel::QueryResult::Ok(rows_read(conn).await)
        })
        .await
        .unwrap();
    assert!(read < 100, "{read} rows");
}

#[tokio::test]
async fn a_step_of_a_replay_reads_its_rows_and_no_more() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    for days in [4, 9, 14, 19, 24, 29] {
        let day = chrono::Utc::now() - chrono::Days::new(days);
        maintain(&mut conn, day, None).await.unwrap();
    }
    seed(&world, 100_000).await;
    // A hundred of our own among them, failed, each with its dead letter.
    let ours = format!(
        r#"UPDATE whatsapp_webhook_events SET webhook_id = '{}', status = 'failed', parked = NULL
           WHERE id IN (SELECT id FROM whatsapp_webhook_events LIMIT 100);
           INSERT INTO whatsapp_dead_letters (event_id, client_id, webhook_id, source_id, event_type, message_id,
               chat, "from", "to", message_type, content, metadata, "timestamp", attempt_count, reason)
           SELECT id, client_id, webhook_id, source_id, event_type, message_id,
               chat, "from", "to", message_type, content, metadata, "timestamp", attempt_count, 'enough'
           FROM whatsapp_webhook_events WHERE status = 'failed'"#,
        world.webhook.id
    );
    let (client, webhook) = (world.client.id, world.webhook.id);
    for way in ["replay", "letters", "deletion"] {
        world.sql(&ours).await;
        world
            .sql("VACUUM ANALYZE whatsapp_webhook_events, whatsapp_dead_letters")
            .await;
        let (read, step) = conn
            .transaction(async |conn| {
                let span = Span::default();
                let step = match way {
                    "replay" => {
                        Events::begin(conn, client, webhook, Settled::Failed, span)
                            .await?
                            .step(conn)
                            .await?
                    }
                    "letters" => {
                        Letters::begin(conn, client, webhook, span)
                            .await?
                            .step(conn)
                            .await?
                    }
                    _ => {
                        Deletion::begin(conn, client, webhook)
                            .await?
                            .step(conn)
                            .await?
                    }
                };
                diesel::QueryResult::Ok((rows_read(conn).await, step))
            })
            .await
            .unwrap();
        assert_eq!(step, Step::Done(100), "{way}");
        assert!(read < 1000, "{read} rows to do 100 by {way}");
        // The next way has others.
        world
            .sql(
                "DELETE FROM whatsapp_dead_letters; DELETE FROM whatsapp_webhook_events
             WHERE webhook_id NOT IN (SELECT id FROM whatsapp_webhooks WHERE webhook_url = '')",
            )
            .await;
    }
}

#[tokio::test]
async fn the_metric_of_the_promise_reads_what_is_recent_and_no_more() {
    let world = World::new().await;
    seed(&world, 100_000).await;
    world.accept(&["A", "B"]).await;
    let mut conn = world.conn().await;
    let read = conn
        .transaction(async |conn| {
            violations(conn).await?;
            diesel::QueryResult::Ok(rows_read(conn).await)
        })
        .await
        .unwrap();
    assert!(read < 100, "{read} rows");
}

#[tokio::test]
async fn statistics_read_the_attempts_of_their_webhook_and_no_more() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    for days in [0, 4, 9, 14, 19, 24, 29] {
        let day = chrono::Utc::now() - chrono::Days::new(days);
        maintain(&mut conn, day, None).await.unwrap();
    }
    // Over a month, one in a thousand is ours.
    world
        .sql(&format!(
            "INSERT INTO whatsapp_delivery_attempts (id, event_id, client_id, webhook_id, attempt, started_at,
                 duration_ms, superseded)
             SELECT (lpad(to_hex((extract(epoch FROM now() - make_interval(secs => n * 25)) * 1000)::bigint), 12, '0')
                     || substr(md5(n::text), 13))::uuid,
                 gen_random_uuid(), {client},
                 CASE WHEN n % 1000 = 0 THEN '{webhook}' ELSE '00000000-0000-0000-0000-000000000000' END::uuid,
                 1, now(), n, false
             FROM generate_series(1, 100000) n",
            client = world.client.id,
            webhook = world.webhook.id,
        ))
        .await;
    world.sql("VACUUM ANALYZE whatsapp_delivery_attempts").await;
    let read = conn
        .transaction(async |conn| {
            let stats = Stats::load(conn, world.client.id, world.webhook.id, 30 * 86_400).await?;
            assert_eq!(stats.attempts.total, 100);
            let read = "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint AS count
                 FROM pg_stat_xact_user_tables WHERE relname LIKE 'whatsapp_delivery_attempts%'";
            diesel::QueryResult::Ok(world::count(conn, read).await)
        })
        .await
        .unwrap();
    assert!(read <= 100, "{read} rows");
}
