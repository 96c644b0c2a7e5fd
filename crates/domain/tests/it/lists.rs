//! Lists of a webhook's events: what a filter lets through, and what a page costs.

use chrono::{DateTime, Days, TimeDelta, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use domain::event::{Event, Filter, List, Range, Status};
use domain::event_type::EventType;
use domain::feed;
use domain::partition::maintain;
use domain::sample;
use domain::span::Span;
use uuid::Uuid;

use crate::world::{self, World};

/// Events of the webhook, settled, oldest first: the `n`th is as old as `age` says of it.
async fn seed(world: &World, count: usize, age: &str) {
    let webhook = world.webhook.id;
    seed_for(world, webhook, count, age).await;
}

async fn seed_for(world: &World, webhook: Uuid, count: usize, age: &str) {
    let client = world.client.id;
    world
        .sql(&format!(
            r#"INSERT INTO whatsapp_webhook_events (id, client_id, webhook_id, source_id, event_type, message_id,
                   chat, "from", "to", message_type, content, metadata, "timestamp", status, created_at, parked)
               SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
                       || substr(md5(n::text || '{webhook}'), 13))::uuid,
                   {client}, '{webhook}', gen_random_uuid(), 'message', 'S' || n, '', '', '', 'text', '', '{{}}', at,
                   CASE WHEN n % 50 = 0 THEN 'failed' WHEN n % 50 = 1 THEN 'pending' ELSE 'delivered' END, at,
                   CASE WHEN n % 50 = 1 THEN 'inactive' END
               FROM (SELECT n, now() - ({age}) AS at FROM generate_series(1, {count}) n) AS events"#
        ))
        .await;
}

/// All pages of a list, of that size; it has so many events as were counted.
async fn all(
    conn: &mut AsyncPgConnection,
    world: &World,
    filter: &Filter,
    size: i64,
) -> Vec<Event> {
    let (client, webhook) = (world.client.id, world.webhook.id);
    let mut list = List::new(conn, client, webhook, filter, None)
        .await
        .unwrap();
    let count = list.count(conn).await.unwrap();
    let mut events: Vec<Event> = Vec::new();
    loop {
        let page = list.page(conn, size, 0).await.unwrap();
        let Some(last) = page.last() else { break };
        let range = Range {
            before: last.sequence,
            ..list.range()
        };
        events.extend(page);
        list = List::new(conn, client, webhook, filter, Some(range))
            .await
            .unwrap();
    }
    assert_eq!(events.len() as i64, count, "{filter:?}");
    events
}

fn ago(minutes: i64) -> Option<DateTime<Utc>> {
    Some(Utc::now() - TimeDelta::minutes(minutes))
}

#[tokio::test]
async fn a_list_has_what_its_filter_lets_through_and_nothing_else() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    // One a minute, each committed by a transaction of up to half a minute.
    seed(
        &world,
        4000,
        "make_interval(mins => 4000 - n, secs => n % 30)",
    )
    .await;
    world.accept(&["S7", "A"]).await;
    let everything = all(&mut conn, &world, &Filter::default(), 1500).await;
    assert_eq!(everything.len(), 4002);
    assert!(everything.is_sorted_by(|one, next| one.sequence > next.sequence));

    let statuses = [
        None,
        Some(Status::Pending),
        Some(Status::Delivered),
        Some(Status::Failed),
    ];
    let spans = [
        (None, None),
        (ago(3000), None),
        (None, ago(3000)),
        (ago(2000), ago(1990)),
        (ago(9000), ago(8000)),
        (ago(-10), ago(-20)),
    ];
    let messages = [None, Some("S7"), Some("A"), Some("S50"), Some("none")];
    let filters = statuses.into_iter().flat_map(|status| {
        spans.into_iter().flat_map(move |(since, until)| {
            messages.into_iter().map(move |message_id| Filter {
                status,
                message_id: message_id.map(str::to_owned),
                span: Span { since, until },
            })
        })
    });
    let mut found = 0;
    for filter in filters {
        let passes = |event: &&Event| {
            let Span { since, until } = filter.span;
            let of = |id: &String| *id == event.message_id;
            filter
                .status
                .is_none_or(|status| status.as_str() == event.status)
                && filter.message_id.as_ref().is_none_or(of)
                && since.is_none_or(|since| event.created_at >= since)
                && until.is_none_or(|until| event.created_at < until)
        };
        let expected: Vec<Uuid> = everything
            .iter()
            .filter(passes)
            .map(|event| event.id)
            .collect();
        let listed = all(&mut conn, &world, &filter, 700).await;
        let listed: Vec<Uuid> = listed.iter().map(|event| event.id).collect();
        assert!(
            listed == expected,
            "{filter:?}: {} of {}",
            listed.len(),
            expected.len()
        );
        found += listed.len();
    }
    assert!(found > 10_000);
}

/// The messages of some events are not kept, and some events are of no message.
#[tokio::test]
async fn a_message_is_found_in_all_that_is_told_of_it() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    world
        .sql("UPDATE whatsapp_webhooks SET event_types = '{*}'")
        .await;
    let told = world.accept(&["A", "B"]).await[0];
    let mut receipt = world.message("A");
    receipt.id = Uuid::now_v7();
    receipt.event_type = EventType::MessageReceipt;
    let receipt = world::accept(&mut conn, &[receipt]).await.events[0];
    let sample = sample::insert(
        &mut conn,
        world.client.id,
        world.webhook.id,
        EventType::Message,
    );
    let sample::Sample::Inserted(sample) = sample.await.unwrap() else {
        panic!("no sample")
    };
    let listed = async |conn: &mut AsyncPgConnection, message_id: &str| -> Vec<Uuid> {
        let filter = Filter {
            message_id: Some(message_id.to_owned()),
            ..Filter::default()
        };
        let events = all(conn, &world, &filter, 1).await;
        events.iter().map(|event| event.id).collect()
    };
    assert_eq!(listed(&mut conn, "A").await, [receipt, told]);
    assert_eq!(listed(&mut conn, "SAMPLE").await, [sample]);

    // Also when the connection that brought it is gone.
    world.sql("DELETE FROM whatsapp_connections").await;
    assert_eq!(listed(&mut conn, "A").await, [receipt, told]);
}

/// Rows of the events that were read without an index, and with one, up to now. The difference counts, within one
/// transaction.
async fn read(conn: &mut AsyncPgConnection) -> (i64, i64) {
    macro_rules! rows {
        ($column:literal) => {
            concat!(
                "SELECT sum(",
                $column,
                ")::bigint AS count FROM pg_stat_xact_user_tables
                 WHERE relname LIKE 'whatsapp_webhook_events%'"
            )
        };
    }
    (
        world::count(conn, rows!("seq_tup_read")).await,
        world::count(conn, rows!("idx_tup_fetch")).await,
    )
}

async fn since(conn: &mut AsyncPgConnection, before: (i64, i64)) -> (i64, i64) {
    let now = read(conn).await;
    (now.0 - before.0, now.1 - before.1)
}

#[tokio::test]
async fn a_page_reads_what_it_shows_however_far_behind_it_is() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    for days in [0, 4, 9, 14, 19, 24] {
        let day = Utc::now() - Days::new(days);
        maintain(&mut conn, day, None).await.unwrap();
    }
    // Up to the last midnight, one every six seconds to a webhook, and a few to another: no partition has so few that
    // it would be read as a whole.
    let other = world::register(&mut conn, world.client.id, "5511900000000", &["message"]).await;
    let night = "interval '1 s' + now() - date_trunc('day', now(), 'UTC')";
    seed(
        &world,
        300_000,
        &format!("{night} + make_interval(secs => 6 * (300000 - n))"),
    )
    .await;
    seed_for(
        &world,
        other.id,
        3000,
        &format!("{night} + make_interval(secs => 600 * (3000 - n))"),
    )
    .await;
    world.accept(&["A"]).await;
    world.sql("VACUUM ANALYZE").await;

    let oldest = world::newest(&mut conn, &world.webhook, 1, 10_000).await[0].sequence;
    let range = |before| Range { after: 0, before };
    let (newest, behind) = (None, Some(range(oldest - 200_000)));
    let statuses = [
        None,
        Some(Status::Pending),
        Some(Status::Delivered),
        Some(Status::Failed),
    ];
    for status in statuses {
        for place in [newest, behind] {
            let filter = Filter {
                status,
                ..Filter::default()
            };
            let (scanned, fetched) = page(&mut conn, &world, &filter, place).await;
            assert_eq!(scanned, 0, "{filter:?} {place:?}");
            // A page of each status, and a look into each partition.
            let most = if status.is_none() { 250 } else { 100 };
            assert!(fetched <= most, "{fetched} rows: {filter:?} {place:?}");
        }
    }
    // What a span begins and ends with is looked for.
    for (since, until) in [
        (ago(10_000), None),
        (None, ago(20_000)),
        (ago(20_000), ago(19_000)),
        (None, ago(60_000)),
    ] {
        let filter = Filter {
            span: Span { since, until },
            ..Filter::default()
        };
        let (scanned, fetched) = page(&mut conn, &world, &filter, None).await;
        assert_eq!(scanned, 0, "{filter:?}");
        assert!(fetched <= 3000, "{fetched} rows: {filter:?}");
    }
    let filter = Filter {
        message_id: Some("A".to_owned()),
        ..Filter::default()
    };
    let (scanned, fetched) = page(&mut conn, &world, &filter, None).await;
    assert!(scanned < 10, "{scanned} rows of where it is all alone");
    assert!(fetched <= 3, "{fetched} rows");

    // Counting ends where it is said to, and reads no row but the index.
    let all = Filter::default();
    let list = List::new(&mut conn, world.client.id, world.webhook.id, &all, None);
    let list = list.await.unwrap();
    let (counted, read) = conn
        .transaction(async |conn| {
            let before = read(conn).await;
            let counted = list.count(conn).await?;
            diesel::QueryResult::Ok((counted, since(conn, before).await))
        })
        .await
        .unwrap();
    assert_eq!((counted, read.0), (10_000, 0));
    assert!(read.1 < 100, "{} rows to count", read.1);
}

/// What a page of 50 reads.
async fn page(
    conn: &mut AsyncPgConnection,
    world: &World,
    filter: &Filter,
    range: Option<Range>,
) -> (i64, i64) {
    let (client, webhook) = (world.client.id, world.webhook.id);
    conn.transaction(async |conn| {
        let before = read(conn).await;
        let list = List::new(conn, client, webhook, filter, range).await?;
        let events = list.page(conn, 50, 0).await?;
        assert_eq!(
            events.is_empty(),
            filter
                .span
                .until
                .is_some_and(|until| Some(until) < ago(40_000)),
            "{filter:?}"
        );
        diesel::QueryResult::Ok(since(conn, before).await)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn who_follows_what_happens_reads_what_is_new() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    for days in [0, 4, 9, 14, 19, 24] {
        let day = Utc::now() - Days::new(days);
        maintain(&mut conn, day, None).await.unwrap();
    }
    seed(&world, 100_000, "make_interval(secs => 18 * (100000 - n))").await;
    world
        .sql(
            "INSERT INTO whatsapp_delivery_attempts (id, event_id, client_id, webhook_id, attempt, started_at,
                 duration_ms, superseded, probe)
             SELECT id, id, client_id, webhook_id, 1, created_at, 1, false, false FROM whatsapp_webhook_events",
        )
        .await;
    let new = world.accept(&["A", "B"]).await;
    world.sql("VACUUM ANALYZE").await;
    let last = world.event(new[1]).await.sequence;
    let client = world.client.id;
    for (after, most) in [(last, 0), (last - 2, 2), (last - 150_000, 400)] {
        let (happened, reads) = conn
            .transaction(async |conn| {
                let before = read(conn).await;
                let (happened, _) = feed::read(conn, client, None, after, last).await?;
                diesel::QueryResult::Ok((happened.len(), since(conn, before).await))
            })
            .await
            .unwrap();
        assert!(
            happened <= most && (happened > 0) == (most > 0),
            "{happened} of {after}"
        );
        assert!(
            reads.0 < 10 && reads.1 <= 1000,
            "{reads:?} rows to tell of {happened}"
        );
    }
}
