//! Signal sessions of all accounts, made durable together: alone, each flush would wait for the disk by itself, and all
//! of them hold up each other's commits.

use std::collections::HashSet;
use std::sync::Arc;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Integer, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use domain::lease::Lease;
use domain::statement::Statement;
use runtime::postgres::Pool;

use super::grouped::{Grouped, Held, Kept, Lane, Submission, column, last_of, leases};
use super::patience::Failed;

/// Where sessions are handed in. Clones lead to one place.
#[derive(Clone)]
pub struct Ratchets(Lane<Session>);

/// A session's row.
pub(super) struct Session {
    pub(super) address: String,
    /// Sealed.
    pub(super) record: Vec<u8>,
}

impl Ratchets {
    /// Its task ends with the last clone.
    pub fn new(pool: Pool) -> Self {
        Self(Lane::start(pool, |_| {}))
    }

    pub(super) async fn keep(
        &self,
        lease: Lease,
        device_id: i32,
        sessions: Arc<Vec<Session>>,
    ) -> Result<Kept, Failed> {
        self.0.write(lease, device_id, sessions).await
    }
}

impl Grouped for Session {
    const ROWS_METRIC: &'static str = "recado_gateway_ratchets_rows";

    fn bytes(&self) -> usize {
        self.record.len()
    }

    async fn write(
        conn: &mut AsyncPgConnection,
        group: &[Submission<Self>],
    ) -> QueryResult<HashSet<Lease>> {
        let (connections, epochs) = leases(group);
        let rows = last_of(group, |row| row.address.as_str());
        let held: Vec<Held> = Statement::new(
            "WITH held AS MATERIALIZED (
                 SELECT connection_id, epoch FROM (
                     SELECT connection_id, epoch FROM unnest(?, ?) AS lease (connection_id, epoch)
                     ORDER BY hashtext(connection_id::text)) AS ordered
                 WHERE lease_is_held(connection_id, epoch)),
             written AS (
                 INSERT INTO protocol_sessions (device_id, address, record)
                 SELECT device_id, address, record
                 FROM unnest(?, ?, ?, ?, ?)
                     AS row (connection_id, epoch, device_id, address, record)
                 JOIN held USING (connection_id, epoch)
                 ON CONFLICT (device_id, address) DO UPDATE SET record = EXCLUDED.record)
             SELECT connection_id, epoch FROM held",
        )
        .bind::<Array<SqlUuid>, _>(&connections)
        .bind::<Array<BigInt>, _>(&epochs)
        .bind::<Array<SqlUuid>, _>(column!(rows, |submission, _row| submission
            .lease
            .connection_id))
        .bind::<Array<BigInt>, _>(column!(rows, |submission, _row| submission.lease.epoch))
        .bind::<Array<Integer>, _>(column!(rows, |submission, _row| submission.device_id))
        .bind::<Array<Text>, _>(column!(rows, |_submission, row| row.address.as_str()))
        .bind::<Array<Binary>, _>(column!(rows, |_submission, row| row.record.as_slice()))
        .load(conn)
        .await?;
        Ok(held.into_iter().map(Lease::from).collect())
    }
}
