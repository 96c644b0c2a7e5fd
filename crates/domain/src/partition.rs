//! Upkeep of the tables that grow: a partition per day, made before it is needed and dropped when its
//! rows have outlived the retention.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use uuid::Uuid;

use crate::ids;
use crate::retention;
use crate::statement::Statement;

/// The tables that are partitioned by id.
const TABLES: [&str; 3] = [
    "whatsapp_messages",
    "whatsapp_webhook_events",
    "whatsapp_delivery_attempts",
];

/// The one that holds what is to be delivered.
const EVENTS: &str = TABLES[1];

/// Days made ahead, so that a maintenance that fails for a while costs nothing.
const AHEAD: u64 = 3;

/// What a run of [`maintain`] did, by partition name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Maintained {
    pub made: Vec<String>,
    pub dropped: Vec<String>,
    /// Past their retention, but they still hold events that are to be delivered: claimed at the moment, or
    /// committed late.
    pub kept: Vec<String>,
    /// Events whose retention was over before they were delivered: dead letters now.
    pub buried: usize,
    /// Rows that were too old for any partition, and for the retention.
    pub deleted: usize,
}

/// The advisory lock of who is at the upkeep ("recadoup" in ASCII), and of who has taken it over.
const LOCK: i64 = 0x7265_6361_646f_7570;
const TAKEN_OVER: i64 = LOCK + 1;

/// Takes the upkeep over until the connection ends, and answers PostgreSQL's time, by which it is to be
/// done; `None` when another connection has it. Doesn't keep anybody from a run of [`maintain`] by hand.
pub async fn begin(conn: &mut AsyncPgConnection) -> QueryResult<Option<DateTime<Utc>>> {
    #[derive(QueryableByName)]
    struct Begun {
        #[diesel(sql_type = Nullable<Timestamptz>)]
        now: Option<DateTime<Utc>>,
    }
    Statement::new("SELECT CASE WHEN pg_try_advisory_lock(?) THEN now() END AS now")
        .bind::<BigInt, _>(TAKEN_OVER)
        .get_result::<Begun>(conn)
        .await
        .map(|begun| begun.now)
}

/// Makes the partitions from yesterday to [`AHEAD`] days from `now`, and drops those whose every row is
/// older than `retention_days`. Rows that fell into a default partition meanwhile are moved first. Events
/// that old which are still to be delivered become dead letters, and rows that old in a default partition are
/// deleted.
///
/// Waits for another that does the same. Each partition, and each batch of rows, is a transaction of its own;
/// an error leaves the rest to the next run. A message goes before its events, so that at no time a message
/// lacks some.
pub async fn maintain(
    conn: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    retention_days: Option<u32>,
) -> QueryResult<Maintained> {
    Statement::new("SELECT pg_advisory_lock(?)")
        .bind::<BigInt, _>(LOCK)
        .execute(conn)
        .await?;
    let done = maintain_alone(conn, now, retention_days).await;
    Statement::new("SELECT pg_advisory_unlock(?)")
        .bind::<BigInt, _>(LOCK)
        .execute(conn)
        .await?;
    done
}

async fn maintain_alone(
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
            if !present.contains(&day) {
                make(conn, table, day).await?;
                done.made.push(name(table, day));
            }
        }
        let Some(days) = retention_days else { continue };
        let oldest_kept = today - Days::new(u64::from(days));
        let cutoff = oldest_kept.and_time(NaiveTime::MIN).and_utc();
        if table == EVENTS {
            done.buried = retention::bury(conn, cutoff).await?;
        }
        for day in present.into_iter().filter(|day| *day < oldest_kept) {
            match drop_settled(conn, table, day).await? {
                true => done.dropped.push(name(table, day)),
                false => done.kept.push(name(table, day)),
            }
        }
        done.deleted += retention::delete_from_default(conn, table, cutoff).await?;
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

async fn make(conn: &mut AsyncPgConnection, table: &str, day: NaiveDate) -> QueryResult<()> {
    let partition = name(table, day);
    let (from, to) = bounds(day);
    // Room in the page for a second version of each event, larger by its claim, spares the indexes.
    let storage = match table {
        EVENTS => " WITH (fillfactor = 45)",
        _ => "",
    };
    let work = format!(
        "CREATE TABLE {partition} (LIKE {table} INCLUDING ALL){storage};
         WITH moved AS (DELETE FROM {table}_default WHERE id >= '{from}' AND id < '{to}' RETURNING *)
         INSERT INTO {partition} SELECT * FROM moved;
         ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ('{from}') TO ('{to}');"
    );
    locked(conn, table, &format!("{table}_default"), &work).await
}

/// Leaves a partition that still holds events that are to be delivered. `false`: it is still there.
///
/// That is looked up before anybody is locked out, and again then, each time by the indexes that hold nothing
/// else.
async fn drop_settled(
    conn: &mut AsyncPgConnection,
    table: &str,
    day: NaiveDate,
) -> QueryResult<bool> {
    let partition = name(table, day);
    if table != EVENTS {
        let work = format!("DROP TABLE {partition};");
        locked(conn, table, &partition, &work).await?;
        return Ok(true);
    }
    if holds_pending(conn, &partition).await? {
        return Ok(false);
    }
    let pending = pending(&partition);
    let work = format!("IF NOT ({pending}) THEN DROP TABLE {partition}; END IF;");
    locked(conn, table, &partition, &work).await?;
    Ok(!partitions(conn, table).await?.contains(&day))
}

fn pending(partition: &str) -> String {
    format!(
        "EXISTS (SELECT FROM {partition} WHERE status = 'pending' AND next_retry_at IS NULL)
         OR EXISTS (SELECT FROM {partition} WHERE status = 'pending' AND next_retry_at IS NOT NULL)"
    )
}

async fn holds_pending(conn: &mut AsyncPgConnection, partition: &str) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Holds {
        #[diesel(sql_type = Bool)]
        pending: bool,
    }
    let query = format!("SELECT {} AS pending", pending(partition));
    let holds: Holds = diesel::sql_query(query).get_result(conn).await?;
    Ok(holds.pending)
}

/// Works on a table and one of its partitions while nobody else does.
///
/// The table is locked first: who comes later waits there, before choosing a partition. One who had
/// chosen already would find its row refused by the default partition, or not find a row that was moved
/// out of it. The wait is shorter than PostgreSQL's deadlock check (1 s), so that in doubt upkeep is what
/// gives way. It is all one statement: the locks never wait for us to go on.
async fn locked(
    conn: &mut AsyncPgConnection,
    table: &str,
    partition: &str,
    work: &str,
) -> QueryResult<()> {
    conn.batch_execute(&format!(
        "DO $upkeep$ BEGIN
             SET LOCAL lock_timeout = '500ms';
             LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE;
             LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE;
             {work}
         END $upkeep$"
    ))
    .await
}
