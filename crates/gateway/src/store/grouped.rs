//! Rows of all sessions, written together: while one statement runs, what the next one takes gathers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Uuid as SqlUuid};
use diesel_async::AsyncPgConnection;
use domain::failure::{Failure, classify};
use domain::lease::Lease;
use runtime::postgres::Pool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::patience::{Failed, within};

/// Submissions that wait; who submits more waits to submit.
const WAITING: usize = 1024;
/// A group that takes longer is slow.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often PostgreSQL is asked whether it is back, when nobody has anything to write.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// What one statement takes.
const ROWS: usize = 500;
const BYTES: usize = 4 * 1024 * 1024;

/// What is written in groups.
pub(super) trait Grouped: Send + Sync + Sized + 'static {
    /// The histogram of rows in a statement.
    const ROWS_METRIC: &'static str;

    fn bytes(&self) -> usize;

    /// Writes the rows of those whose lease stands, and returns these leases.
    fn write(
        conn: &mut AsyncPgConnection,
        group: &[Submission<Self>],
    ) -> impl Future<Output = QueryResult<HashSet<Lease>>> + Send;
}

/// Whether the rows were written, or their lease is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Kept,
    LeaseLost,
}

pub(super) struct Submission<R> {
    pub(super) lease: Lease,
    pub(super) device_id: i32,
    pub(super) rows: Arc<Vec<R>>,
    done: oneshot::Sender<Result<Kept, Failed>>,
}

/// Where rows are handed in. Clones lead to one place.
pub(super) struct Lane<R>(mpsc::Sender<Submission<R>>);

impl<R> Clone for Lane<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: Grouped> Lane<R> {
    /// Its task ends with the last clone. It tells after each group whether rows can be written, and before the end of
    /// one that is slow that they can't.
    pub(super) fn start(pool: Pool, tell: impl Fn(bool) + Send + Sync + 'static) -> Self {
        let (lane, submissions) = mpsc::channel(WAITING);
        tokio::spawn(write_all(pool, submissions, tell));
        Self(lane)
    }

    pub(super) async fn write(
        &self,
        lease: Lease,
        device_id: i32,
        rows: Arc<Vec<R>>,
    ) -> Result<Kept, Failed> {
        let (done, kept) = oneshot::channel();
        let submission = Submission {
            lease,
            device_id,
            rows,
            done,
        };
        self.0.send(submission).await.map_err(|_| Failed::Closed)?;
        kept.await.map_err(|_| Failed::Closed)?
    }
}

async fn write_all<R: Grouped>(
    pool: Pool,
    mut submissions: mpsc::Receiver<Submission<R>>,
    tell: impl Fn(bool),
) {
    let mut failing = false;
    loop {
        // Nobody may be left who tries again.
        let wait = if failing { HEARTBEAT } else { Duration::MAX };
        let first = match timeout(wait, submissions.recv()).await {
            Ok(Some(first)) => first,
            Ok(None) => return,
            Err(_) => {
                failing = pool.get().await.is_err();
                if !failing {
                    tell(true);
                }
                continue;
            }
        };
        let mut group = vec![first];
        let mut size = group[0].size();
        while size.0 < ROWS
            && size.1 < BYTES
            && let Ok(next) = submissions.try_recv()
        {
            let more = next.size();
            size = (size.0 + more.0, size.1 + more.1);
            group.push(next);
        }
        metrics::histogram!(R::ROWS_METRIC).record(size.0 as f64);
        let kept = {
            let mut writing = std::pin::pin!(write_group(&pool, group));
            match timeout(PATIENCE, &mut writing).await {
                Ok(kept) => kept,
                Err(_) => {
                    tell(false);
                    writing.await
                }
            }
        };
        failing = !kept;
        tell(kept);
    }
}

impl<R: Grouped> Submission<R> {
    /// Rows and bytes.
    fn size(&self) -> (usize, usize) {
        (self.rows.len(), self.rows.iter().map(R::bytes).sum())
    }

    fn answer(self, answer: Result<Kept, Failed>) {
        // Nobody waits any more when the session has ended meanwhile.
        let _ = self.done.send(answer);
    }
}

/// Whether PostgreSQL was there.
async fn write_group<R: Grouped>(pool: &Pool, group: Vec<Submission<R>>) -> bool {
    let mut conn = match pool.get().await {
        Ok(conn) => conn,
        Err(error) => {
            refuse(group, &error.to_string());
            return false;
        }
    };
    match within(R::write(&mut conn, &group)).await {
        Ok(held) => answer(group, &held),
        Err(Failed::Query(error)) if group.len() > 1 && classify(&error) != Failure::Transient => {
            // One of them is at fault: alone, each has its own answer.
            for submission in group {
                let alone = std::slice::from_ref(&submission);
                match within(R::write(&mut conn, alone)).await {
                    Ok(held) => answer(vec![submission], &held),
                    Err(failed) => submission.answer(Err(failed)),
                }
            }
        }
        Err(failed) => {
            let there =
                matches!(&failed, Failed::Query(error) if classify(error) != Failure::Transient);
            let why = failed.to_string();
            let mut group = group.into_iter();
            if let Some(first) = group.next() {
                first.answer(Err(failed));
            }
            refuse(group, &why);
            return there;
        }
    }
    true
}

fn refuse<R: Grouped>(group: impl IntoIterator<Item = Submission<R>>, why: &str) {
    for submission in group {
        submission.answer(Err(Failed::Unreachable(why.into())));
    }
}

fn answer<R: Grouped>(group: Vec<Submission<R>>, held: &HashSet<Lease>) {
    for submission in group {
        let kept = match held.contains(&submission.lease) {
            true => Kept::Kept,
            false => Kept::LeaseLost,
        };
        submission.answer(Ok(kept));
    }
}

/// A lease that stands.
#[derive(QueryableByName)]
pub(super) struct Held {
    #[diesel(sql_type = SqlUuid)]
    connection_id: uuid::Uuid,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

impl From<Held> for Lease {
    fn from(held: Held) -> Self {
        Self {
            connection_id: held.connection_id,
            epoch: held.epoch,
        }
    }
}

/// The connections and the epochs of a group's leases.
pub(super) fn leases<R>(group: &[Submission<R>]) -> (Vec<uuid::Uuid>, Vec<i64>) {
    let leases: HashSet<Lease> = group.iter().map(|submission| submission.lease).collect();
    leases
        .into_iter()
        .map(|lease| (lease.connection_id, lease.epoch))
        .unzip()
}

/// The rows of a group with what they were submitted with. Of two with one key the last: one statement cannot change a
/// row twice. Of one connection's leases one is held at most.
pub(super) fn last_of<'a, R, K: std::hash::Hash + Eq>(
    group: &'a [Submission<R>],
    key: impl Fn(&'a R) -> K,
) -> Vec<(&'a Submission<R>, &'a R)> {
    let mut seen = HashSet::new();
    let mut rows: Vec<_> = group
        .iter()
        .flat_map(|submission| submission.rows.iter().map(move |row| (submission, row)))
        .rev()
        .filter(|(submission, row)| seen.insert((submission.lease, key(row))))
        .collect();
    rows.reverse();
    rows
}

/// What is bound as an array: one value of each row that [`last_of`] has found.
macro_rules! column {
    ($rows:ident, |$submission:ident, $row:ident| $value:expr) => {
        $rows
            .iter()
            .map(|($submission, $row)| $value)
            .collect::<Vec<_>>()
    };
}
pub(super) use column;
