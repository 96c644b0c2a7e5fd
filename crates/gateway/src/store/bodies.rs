//! Decrypted bodies of all sessions, written together: while one statement runs, what the next one takes gathers.
//!
//! Neither waits for the disk. A body's row becomes durable no later than the ratchet that its message moved,
//! since that is committed after it; before, a crash undoes both, and the message comes again. To forget a row
//! may be undone as well: its message is committed, and meets its own row.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use domain::failure::{Failure, classify};
use domain::lease::Lease;
use domain::statement::Statement;
use runtime::postgres::Pool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::inflight::{Key, Registry};
use super::patience::{Failed, within};
use crate::valve::{Cause, Valve};

/// Submissions that wait; who submits more waits to submit.
const WAITING: usize = 1024;
/// A group that takes longer closes the valve.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often PostgreSQL is asked whether it is back, when nobody has anything to store.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// What one statement takes.
const ROWS: usize = 500;
const BYTES: usize = 4 * 1024 * 1024;

/// Where bodies are handed in. Clones lead to one place.
#[derive(Clone)]
pub struct Bodies {
    keep: mpsc::Sender<Keep>,
    forget: mpsc::Sender<Forget>,
    inflight: Arc<Registry>,
}

/// A message's row.
pub(super) struct Body {
    pub(super) key: Key,
    pub(super) chat: String,
    pub(super) sender: String,
    pub(super) message_id: String,
    /// Sealed.
    pub(super) body: Option<Vec<u8>>,
}

/// Whether the rows were written, or their lease is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Kept,
    LeaseLost,
}

struct Keep {
    lease: Lease,
    device_id: i32,
    rows: Arc<Vec<Body>>,
    done: oneshot::Sender<Result<Kept, Failed>>,
}

struct Forget {
    lease: Lease,
    device_id: i32,
    keys: Vec<Key>,
}

impl Bodies {
    /// Its tasks end with the last clone.
    pub fn new(pool: Pool, inflight: Arc<Registry>, valve: Arc<Valve>) -> Self {
        let (keep, kept) = mpsc::channel(WAITING);
        let (forget, forgotten) = mpsc::channel(WAITING);
        tokio::spawn(keep_all(pool.clone(), kept, valve));
        tokio::spawn(forget_all(pool, Arc::clone(&inflight), forgotten));
        Self {
            keep,
            forget,
            inflight,
        }
    }

    pub(super) async fn keep(
        &self,
        lease: Lease,
        device_id: i32,
        rows: Arc<Vec<Body>>,
    ) -> Result<Kept, Failed> {
        let (done, kept) = oneshot::channel();
        let submission = Keep {
            lease,
            device_id,
            rows,
            done,
        };
        self.keep
            .send(submission)
            .await
            .map_err(|_| Failed::Closed)?;
        kept.await.map_err(|_| Failed::Closed)?
    }

    /// Returns before it is done; the registry knows of it.
    pub(super) async fn forget(&self, lease: Lease, device_id: i32, keys: Vec<Key>) {
        self.inflight.forget(lease.connection_id, &keys);
        let submission = Forget {
            lease,
            device_id,
            keys,
        };
        // What is not forgotten ages out: its message is committed.
        let _ = self.forget.send(submission).await;
    }
}

async fn keep_all(pool: Pool, mut submissions: mpsc::Receiver<Keep>, valve: Arc<Valve>) {
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
                    valve.open(Cause::Bodies);
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
        metrics::histogram!("recado_gateway_bodies_rows").record(size.0 as f64);
        let kept = {
            let mut keeping = std::pin::pin!(keep_group(&pool, group));
            match timeout(PATIENCE, &mut keeping).await {
                Ok(kept) => kept,
                Err(_) => {
                    valve.close(Cause::Bodies);
                    keeping.await
                }
            }
        };
        failing = !kept;
        match kept {
            true => valve.open(Cause::Bodies),
            false => valve.close(Cause::Bodies),
        }
    }
}

impl Keep {
    /// Rows and bytes.
    fn size(&self) -> (usize, usize) {
        let bytes = self
            .rows
            .iter()
            .map(|row| row.body.as_ref().map_or(0, Vec::len));
        (self.rows.len(), bytes.sum())
    }

    fn answer(self, answer: Result<Kept, Failed>) {
        // Nobody waits any more when the session has ended meanwhile.
        let _ = self.done.send(answer);
    }
}

/// Whether PostgreSQL was there.
async fn keep_group(pool: &Pool, group: Vec<Keep>) -> bool {
    let mut conn = match pool.get().await {
        Ok(conn) => conn,
        Err(error) => {
            refuse(group, &error.to_string());
            return false;
        }
    };
    match within(insert(&mut conn, &group)).await {
        Ok(held) => answer(group, &held),
        Err(Failed::Query(error)) if group.len() > 1 && classify(&error) != Failure::Transient => {
            // One of them is at fault: alone, each has its own answer.
            for submission in group {
                let alone = std::slice::from_ref(&submission);
                match within(insert(&mut conn, alone)).await {
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

fn refuse(group: impl IntoIterator<Item = Keep>, why: &str) {
    for submission in group {
        submission.answer(Err(Failed::Unreachable(why.into())));
    }
}

fn answer(group: Vec<Keep>, held: &HashSet<Lease>) {
    for submission in group {
        let kept = match held.contains(&submission.lease) {
            true => Kept::Kept,
            false => Kept::LeaseLost,
        };
        submission.answer(Ok(kept));
    }
}

#[derive(QueryableByName)]
struct Held {
    #[diesel(sql_type = SqlUuid)]
    connection_id: uuid::Uuid,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

/// Writes the rows of those whose lease stands, and returns these leases.
async fn insert(conn: &mut AsyncPgConnection, group: &[Keep]) -> QueryResult<HashSet<Lease>> {
    let leases: HashSet<Lease> = group.iter().map(|submission| submission.lease).collect();
    let (connections, epochs): (Vec<_>, Vec<_>) = leases
        .iter()
        .map(|lease| (lease.connection_id, lease.epoch))
        .unzip();
    // Of two with one key the last: one statement cannot change a row twice. Of one connection's leases one is
    // held at most.
    let mut seen = HashSet::new();
    let mut rows: Vec<(&Keep, &Body)> = group
        .iter()
        .flat_map(|submission| submission.rows.iter().map(move |row| (submission, row)))
        .rev()
        .filter(|(submission, row)| seen.insert((submission.lease, row.key)))
        .collect();
    rows.reverse();
    macro_rules! column {
        (|$submission:ident, $row:ident| $value:expr) => {
            rows.iter()
                .map(|($submission, $row)| $value)
                .collect::<Vec<_>>()
        };
    }
    let held: Vec<Held> = Statement::new(
        "WITH held AS MATERIALIZED (
             SELECT connection_id, epoch FROM (
                 SELECT connection_id, epoch FROM unnest(?, ?) AS lease (connection_id, epoch)
                 ORDER BY hashtext(connection_id::text)) AS ordered
             WHERE lease_is_held(connection_id, epoch)
                 AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off'),
         written AS (
             INSERT INTO protocol_pending_inbound (device_id, key, chat, sender, message_id, body)
             SELECT device_id, key, chat, sender, message_id, body
             FROM unnest(?, ?, ?, ?, ?, ?, ?, ?)
                 AS row (connection_id, epoch, device_id, key, chat, sender, message_id, body)
             JOIN held USING (connection_id, epoch)
             ON CONFLICT (device_id, key)
             DO UPDATE SET body = EXCLUDED.body, stored_at = EXCLUDED.stored_at)
         SELECT connection_id, epoch FROM held",
    )
    .bind::<Array<SqlUuid>, _>(&connections)
    .bind::<Array<BigInt>, _>(&epochs)
    .bind::<Array<SqlUuid>, _>(column!(|submission, _row| submission.lease.connection_id))
    .bind::<Array<BigInt>, _>(column!(|submission, _row| submission.lease.epoch))
    .bind::<Array<Integer>, _>(column!(|submission, _row| submission.device_id))
    .bind::<Array<Binary>, _>(column!(|_submission, row| row.key.as_bytes()))
    .bind::<Array<Text>, _>(column!(|_submission, row| row.chat.as_str()))
    .bind::<Array<Text>, _>(column!(|_submission, row| row.sender.as_str()))
    .bind::<Array<Text>, _>(column!(|_submission, row| row.message_id.as_str()))
    .bind::<Array<Nullable<Binary>>, _>(column!(|_submission, row| row.body.as_deref()))
    .load(conn)
    .await?;
    let lease = |held: Held| Lease {
        connection_id: held.connection_id,
        epoch: held.epoch,
    };
    Ok(held.into_iter().map(lease).collect())
}

async fn forget_all(pool: Pool, inflight: Arc<Registry>, mut submissions: mpsc::Receiver<Forget>) {
    let mut group = Vec::new();
    while submissions.recv_many(&mut group, ROWS).await > 0 {
        let deleted = async {
            let mut conn = pool.get().await?;
            within(delete(&mut conn, &group)).await
        };
        if let Err(failed) = deleted.await {
            tracing::warn!("bodies of committed messages are left to age out: {failed}");
        }
        for submission in group.drain(..) {
            inflight.forgot(submission.lease.connection_id, &submission.keys);
        }
    }
}

async fn delete(conn: &mut AsyncPgConnection, group: &[Forget]) -> QueryResult<usize> {
    let keys = group
        .iter()
        .flat_map(|submission| submission.keys.iter().map(move |key| (submission, key)));
    let (mut leases, mut devices, mut bytes) = ((Vec::new(), Vec::new()), Vec::new(), Vec::new());
    for (submission, key) in keys {
        leases.0.push(submission.lease.connection_id);
        leases.1.push(submission.lease.epoch);
        devices.push(submission.device_id);
        bytes.push(key.as_bytes());
    }
    Statement::new(
        "WITH old AS MATERIALIZED (SELECT * FROM unnest(?, ?, ?, ?)
             AS old (connection_id, epoch, device_id, key)),
         held AS MATERIALIZED (
             SELECT connection_id, epoch FROM (
                 SELECT DISTINCT connection_id, epoch, hashtext(connection_id::text) AS place
                 FROM old ORDER BY place) AS ordered
             WHERE lease_is_held(connection_id, epoch)
                 AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off')
         DELETE FROM protocol_pending_inbound AS row USING old JOIN held USING (connection_id, epoch)
         WHERE row.device_id = old.device_id AND row.key = old.key",
    )
    .bind::<Array<SqlUuid>, _>(&leases.0)
    .bind::<Array<BigInt>, _>(&leases.1)
    .bind::<Array<Integer>, _>(&devices)
    .bind::<Array<Binary>, _>(&bytes)
    .execute(conn)
    .await
}
