//! One gateway at a time holds the sessions: a lock in PostgreSQL, on a connection that lives as long as the
//! gateway holds it.
//!
//! The holder commits messages on this same connection ([`crate::committer`]): what it commits, it commits
//! while it holds the lock. When the connection breaks, the lock is free; the holder takes it again at
//! once, and those who wait do not take it before it was free for a while.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Bool, Integer, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use domain::statement::Statement;
use runtime::config::DatabaseConfig;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Names the lock ("gateway" in ASCII).
const KEY: i64 = 0x67_6174_6577_6179;
/// How long the lock must have been free before one who waits takes it: long enough for its holder to be
/// back after PostgreSQL was restarted.
const HEARTBEAT: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(250);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What a question about the lock may take.
const ANSWER: Duration = Duration::from_secs(5);

/// How this gateway stands to the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// PostgreSQL has not answered yet.
    Unknown(String),
    /// Another gateway has it.
    Waiting,
    Held,
    /// It was held until PostgreSQL went away; nothing is acknowledged meanwhile.
    Lost(String),
}

/// Another gateway took the lock while PostgreSQL was away: it holds the sessions now.
#[derive(Debug, thiserror::Error)]
#[error("another gateway has taken the sessions over")]
pub(crate) struct Taken;

/// The lock, from where one gateway stands.
#[derive(Debug)]
pub(crate) struct Lock {
    database: DatabaseConfig,
    standing: watch::Sender<Standing>,
    last: Option<Backend>,
}

/// A connection as PostgreSQL names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
struct Backend {
    #[diesel(sql_type = Integer)]
    pid: i32,
    #[diesel(sql_type = Timestamptz)]
    started: DateTime<Utc>,
}

impl Lock {
    pub(crate) fn new(database: DatabaseConfig) -> Self {
        let standing = Standing::Unknown("not asked for yet".to_owned());
        Self {
            database,
            standing: watch::Sender::new(standing),
            last: None,
        }
    }

    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Waits until the lock is this gateway's. The connection holds it.
    pub(crate) async fn acquire(&mut self) -> AsyncPgConnection {
        let mut first_look = true;
        let mut backoff = Backoff::default();
        loop {
            match self.wait_once(&mut first_look).await {
                Ok(conn) => return conn,
                Err(problem) => {
                    first_look = false;
                    self.standing.send_replace(Standing::Unknown(problem));
                    backoff.pause().await;
                }
            }
        }
    }

    /// Waits on one connection. A gateway that has just started takes a lock that is free; one that has
    /// waited sees it free for a heartbeat first.
    async fn wait_once(&mut self, first_look: &mut bool) -> Result<AsyncPgConnection, String> {
        let mut conn = self.connect().await?;
        if *first_look && self.try_lock(&mut conn).await? {
            return Ok(conn);
        }
        *first_look = false;
        let mut free_since = None;
        loop {
            match answer(holder(&mut conn)).await? {
                Some(_) => {
                    if self.standing.send_replace(Standing::Waiting) != Standing::Waiting {
                        tracing::info!("another gateway holds the sessions: waiting for it to end");
                    }
                    free_since = None;
                }
                None if free_since.get_or_insert_with(Instant::now).elapsed() >= HEARTBEAT => {
                    if self.try_lock(&mut conn).await? {
                        return Ok(conn);
                    }
                    free_since = None;
                }
                None => {}
            }
            sleep(LOOK).await;
        }
    }

    /// Takes the lock again after its connection broke, as soon as PostgreSQL is there.
    pub(crate) async fn reacquire(&mut self, why: &str) -> Result<AsyncPgConnection, Taken> {
        tracing::warn!(
            error = why,
            "PostgreSQL is away: sessions stay, nothing is acknowledged"
        );
        self.standing.send_replace(Standing::Lost(why.to_owned()));
        let mut backoff = Backoff::default();
        loop {
            match self.reacquire_once().await {
                Ok(Some(conn)) => {
                    tracing::info!("PostgreSQL is back, and the sessions are still this gateway's");
                    return Ok(conn);
                }
                Ok(None) => return Err(Taken),
                Err(problem) => {
                    self.standing.send_replace(Standing::Lost(problem));
                    backoff.pause().await;
                }
            }
        }
    }

    /// `None` when the lock is another gateway's.
    async fn reacquire_once(&mut self) -> Result<Option<AsyncPgConnection>, String> {
        let mut conn = self.connect().await?;
        if self.try_lock(&mut conn).await? {
            return Ok(Some(conn));
        }
        match answer(holder(&mut conn)).await? {
            // The server has not noticed yet that this gateway's former connection is gone.
            Some(former) if Some(former) == self.last => {
                answer(terminate(&mut conn, former)).await?;
                Err("ending the former connection".to_owned())
            }
            Some(_) => Ok(None),
            None => Err("the lock changed hands".to_owned()),
        }
    }

    async fn connect(&self) -> Result<AsyncPgConnection, String> {
        runtime::postgres::connect(&self.database)
            .await
            .map_err(|error| error.to_string())
    }

    async fn try_lock(&mut self, conn: &mut AsyncPgConnection) -> Result<bool, String> {
        let taken = answer(try_lock(conn)).await?;
        if taken {
            self.last = Some(answer(backend(conn)).await?);
            // The promise does not depend on how the server is set up.
            answer(conn.batch_execute(
                "SELECT set_config('synchronous_commit', 'on', false)
                 WHERE current_setting('synchronous_commit') = 'off'",
            ))
            .await?;
            self.standing.send_replace(Standing::Held);
        }
        Ok(taken)
    }
}

/// Whether the connection, and with it the lock, is still there.
pub(crate) async fn is_alive(conn: &mut AsyncPgConnection) -> Result<(), String> {
    answer(conn.batch_execute("SELECT 1")).await
}

async fn answer<T>(question: impl Future<Output = QueryResult<T>>) -> Result<T, String> {
    match timeout(ANSWER, question).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

async fn try_lock(conn: &mut AsyncPgConnection) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Bool)]
        taken: bool,
    }
    let row: Row = Statement::new("SELECT pg_try_advisory_lock(?) AS taken")
        .bind::<BigInt, _>(KEY)
        .get_result(conn)
        .await?;
    Ok(row.taken)
}

async fn backend(conn: &mut AsyncPgConnection) -> QueryResult<Backend> {
    Statement::new(
        "SELECT pid, backend_start AS started FROM pg_stat_activity WHERE pid = pg_backend_pid()",
    )
    .get_result(conn)
    .await
}

/// Whose the lock is. The start is null, and given as now, where the holder is another database user's.
async fn holder(conn: &mut AsyncPgConnection) -> QueryResult<Option<Backend>> {
    Statement::new(
        "SELECT held.pid, coalesce(activity.backend_start, now()) AS started
         FROM pg_locks AS held LEFT JOIN pg_stat_activity AS activity USING (pid)
         WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
             AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND (held.classid::bigint << 32 | held.objid::bigint) = ?",
    )
    .bind::<BigInt, _>(KEY)
    .get_result(conn)
    .await
    .optional()
}

async fn terminate(conn: &mut AsyncPgConnection, former: Backend) -> QueryResult<()> {
    Statement::new(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ? AND backend_start = ?",
    )
    .bind::<Integer, _>(former.pid)
    .bind::<Timestamptz, _>(former.started)
    .execute(conn)
    .await
    .map(drop)
}

/// Pauses from 50 ms doubled up to a second.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) async fn pause(&mut self) {
        sleep((FIRST_PAUSE * 2_u32.pow(self.0.min(8))).min(LONGEST_PAUSE)).await;
        self.0 = self.0.saturating_add(1);
    }
}
