//! Decrypted bodies of all sessions, written together: while one statement runs, what the next one takes gathers.
//!
//! Neither waits for the disk. A body's row becomes durable no later than the ratchet that its message moved,
//! since that is committed after it; before, a crash undoes both, and the message comes again. To forget a row
//! may be undone as well: its message is committed, and meets its own row.

use std::collections::HashSet;
use std::sync::Arc;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use domain::lease::Lease;
use domain::statement::Statement;
use runtime::postgres::Pool;
use tokio::sync::mpsc;

use super::grouped::{Grouped, Held, Kept, Lane, Submission, column, last_of, leases};
use super::inflight::{Key, Registry};
use super::patience::{Failed, within};
use crate::valve::{Cause, Valve};

/// Submissions that wait to be forgotten; who submits more waits to submit.
const WAITING: usize = 1024;
/// What one statement forgets.
const ROWS: usize = 500;

/// Where bodies are handed in. Clones lead to one place.
#[derive(Clone)]
pub struct Bodies {
    keep: Lane<Body>,
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

struct Forget {
    lease: Lease,
    device_id: i32,
    keys: Vec<Key>,
}

impl Bodies {
    /// Its tasks end with the last clone.
    pub fn new(pool: Pool, inflight: Arc<Registry>, valve: Arc<Valve>) -> Self {
        let (forget, forgotten) = mpsc::channel(WAITING);
        let keep = Lane::start(pool.clone(), move |kept| match kept {
            true => valve.open(Cause::Bodies),
            false => valve.close(Cause::Bodies),
        });
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
        self.keep.write(lease, device_id, rows).await
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

impl Grouped for Body {
    const ROWS_METRIC: &'static str = "recado_gateway_bodies_rows";

    fn bytes(&self) -> usize {
        self.body.as_ref().map_or(0, Vec::len)
    }

    async fn write(
        conn: &mut AsyncPgConnection,
        group: &[Submission<Self>],
    ) -> QueryResult<HashSet<Lease>> {
        let (connections, epochs) = leases(group);
        let rows = last_of(group, |row| row.key);
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
        .bind::<Array<SqlUuid>, _>(column!(rows, |submission, _row| submission.lease.connection_id))
        .bind::<Array<BigInt>, _>(column!(rows, |submission, _row| submission.lease.epoch))
        .bind::<Array<Integer>, _>(column!(rows, |submission, _row| submission.device_id))
        .bind::<Array<Binary>, _>(column!(rows, |_submission, row| row.key.as_bytes()))
        .bind::<Array<Text>, _>(column!(rows, |_submission, row| row.chat.as_str()))
        .bind::<Array<Text>, _>(column!(rows, |_submission, row| row.sender.as_str()))
        .bind::<Array<Text>, _>(column!(rows, |_submission, row| row.message_id.as_str()))
        .bind::<Array<Nullable<Binary>>, _>(column!(rows, |_submission, row| row.body.as_deref()))
        .load(conn)
        .await?;
        Ok(held.into_iter().map(Lease::from).collect())
    }
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
