//! Upkeep of the tables that grow: a partition per day, made before it is needed and dropped when its
//! rows have outlived the retention.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use uuid::Uuid;

use crate::ids;
use crate::statement::Statement;

/// The tables that are partitioned by id.
const TABLES: [&str; 3] = [
    "whatsapp_messages",
    "whatsapp_webhook_events",
    "whatsapp_delivery_attempts",
];

/// Days made ahead, so that a maintenance that fails for a while costs nothing.
const AHEAD: u64 = 3;

/// What a run of [`maintain`] did, by partition name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Maintained {
    pub made: Vec<String>,
    pub dropped: Vec<String>,
    /// Past their retention, but they still hold pending events.
    pub kept: Vec<String>,
}

/// The advisory lock of whoever does the upkeep ("recadoup" in ASCII).
const LOCK: i64 = 0x7265_6361_646f_7570;

/// Takes the upkeep over until the connection ends, and answers PostgreSQL's time, by which it is to be
/// done; `None` when another connection has it.
pub async fn begin(conn: &mut AsyncPgConnection) -> QueryResult<Option<DateTime<Utc>>> {
    #[derive(QueryableByName)]
    struct Begun {
        #[diesel(sql_type = Nullable<Timestamptz>)]
        now: Option<DateTime<Utc>>,
    }
    Statement::new("SELECT CASE WHEN pg_try_advisory_lock(?) THEN now() END AS now")
        .bind::<BigInt, _>(LOCK)
        .get_result::<Begun>(conn)
        .await
        .map(|begun| begun.now)
}

/// Makes the partitions from yesterday to [`AHEAD`] days from `now`, and drops those whose every row is
/// older than `retention_days`. Rows that fell into a default partition meanwhile are moved first.
///
/// Each partition is a transaction of its own that waits at most 2 s for its locks, so that upkeep
/// never holds up delivery; what could not be done now is done by the next run.
pub async fn maintain(
    conn: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    retention_days: Option<u32>,
) -> QueryResult<Maintained> {
    let mut done = Maintained::default();
    let today = now.date_naive();
    let first = today - Days::new(1);
    for table in TABLES {
        let present = partitions(conn, table).await?;
        for day in (0..=AHEAD + 1).map(|n| first + Days::new(n)) {
            if !present.contains(&day) && make(conn, table, day).await? {
                done.made.push(name(table, day));
            }
        }
        let Some(days) = retention_days else { continue };
        let oldest_kept = today - Days::new(u64::from(days));
        for day in present.into_iter().filter(|day| *day < oldest_kept) {
            match drop_settled(conn, table, day).await? {
                true => done.dropped.push(name(table, day)),
                false => done.kept.push(name(table, day)),
            }
        }
    }
    Ok(done)
}

fn name(table: &str, day: NaiveDate) -> String {
    format!("{table}_{}", day.format("%Y%m%d"))
}

/// The ids of a day: from the first, before the second.
fn bounds(day: NaiveDate) -> (Uuid, Uuid) {
    let midnight = |day: NaiveDate| ids::floor(day.and_time(NaiveTime::MIN).and_utc());
    (midnight(day), midnight(day + Days::new(1)))
}

async fn partitions(conn: &mut AsyncPgConnection, table: &str) -> QueryResult<Vec<NaiveDate>> {
    #[derive(QueryableByName)]
    struct Partition {
        #[diesel(sql_type = Text)]
        name: String,
    }
    let rows: Vec<Partition> = Statement::new(
        "SELECT c.relname::text AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = to_regclass(?)",
    )
    .bind::<Text, _>(table)
    .load(conn)
    .await?;
    let prefix = format!("{table}_");
    Ok(rows
        .iter()
        .filter_map(|row| row.name.strip_prefix(&prefix))
        .filter_map(|day| NaiveDate::parse_from_str(day, "%Y%m%d").ok())
        .collect())
}

/// `false` when somebody else made it while this waited for its lock.
async fn make(conn: &mut AsyncPgConnection, table: &str, day: NaiveDate) -> QueryResult<bool> {
    let partition = name(table, day);
    let (from, to) = bounds(day);
    let lock = format!(
        "SET LOCAL lock_timeout = '2s'; LOCK TABLE {table}_default IN ACCESS EXCLUSIVE MODE;"
    );
    let sql = format!(
        "CREATE TABLE {partition} (LIKE {table} INCLUDING ALL);
         WITH moved AS (DELETE FROM {table}_default WHERE id >= '{from}' AND id < '{to}' RETURNING *)
         INSERT INTO {partition} SELECT * FROM moved;
         ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ('{from}') TO ('{to}');"
    );
    conn.transaction(async |conn| {
        conn.batch_execute(&lock).await?;
        if partitions(conn, table).await?.contains(&day) {
            return Ok(false);
        }
        conn.batch_execute(&sql).await?;
        Ok(true)
    })
    .await
}

/// `false` when the partition still holds events that are to be delivered.
async fn drop_settled(
    conn: &mut AsyncPgConnection,
    table: &str,
    day: NaiveDate,
) -> QueryResult<bool> {
    let partition = name(table, day);
    conn.transaction(async |conn| {
        conn.batch_execute(&format!(
            "SET LOCAL lock_timeout = '2s'; LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE;"
        ))
        .await?;
        if table == "whatsapp_webhook_events" && holds_pending(conn, day).await? {
            return Ok(false);
        }
        conn.batch_execute(&format!("DROP TABLE {partition};"))
            .await?;
        Ok(true)
    })
    .await
}

async fn holds_pending(conn: &mut AsyncPgConnection, day: NaiveDate) -> QueryResult<bool> {
    use crate::schema::whatsapp_webhook_events as events;
    let (from, to) = bounds(day);
    let pending = events::table
        .filter(events::status.eq("pending"))
        .filter(events::id.ge(from).and(events::id.lt(to)));
    diesel::select(diesel::dsl::exists(pending))
        .get_result(conn)
        .await
}
