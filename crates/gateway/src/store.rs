//! The protocol store: what the client library must remember of one linked device, in PostgreSQL.
//!
//! One [`Store`] serves one session, scoped by its device row; nothing is cached in the process, so a
//! session can be taken over by whoever opens the same row. Every change is fenced: it fails once another
//! gateway has claimed the connection. What an error means to the library decides
//! how long each operation waits while PostgreSQL is away (`patience`); how a message whose ratchet
//! moved on is never acknowledged unheard is told in [`pending_inbound`].

mod app_sync;
pub mod bodies;
mod columns;
mod device;
mod fence;
mod grouped;
pub mod inflight;
mod lid_mapping;
mod msg_secret;
mod patience;
pub mod pending_inbound;
mod prekey;
mod protocol;
pub mod ratchets;
mod schema;
mod sent_message;
mod signal;
mod tc_token;

use std::sync::Arc;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Uuid as SqlUuid};
use diesel_async::pooled_connection::deadpool::Object;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use domain::keyring::Keyring;
use domain::lease::Lease;
use domain::sealed::Place;
use domain::statement::Statement;
use runtime::postgres::Pool;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;
use whatsapp_rust::wacore::store::error::{Result, StoreError};

use self::bodies::Bodies;
use self::fence::Fenced;
use self::grouped::Kept;
use self::inflight::Registry;
use self::patience::{Failed, Limit, Patience, Query, within};
use self::pending_inbound::LostBodies;
use self::ratchets::{Ratchets, Session};
use self::schema::protocol_devices;
use crate::hold::Hold;
use crate::underway::Underway;

/// What a store stands on. The registry, the bodies and the ratchets are one for the process.
#[derive(Clone)]
pub struct Shelf {
    pub pool: Pool,
    pub keyring: Arc<Keyring>,
    pub inflight: Arc<Registry>,
    pub bodies: Bodies,
    pub ratchets: Ratchets,
    pub lost_bodies: Arc<dyn LostBodies>,
    /// The session's.
    pub underway: Arc<Underway>,
}

/// The library's `Backend` for one connection's device.
pub struct Store {
    shelf: Shelf,
    hold: Hold,
    connection_id: Uuid,
    device_id: i32,
    /// Held while the device is saved.
    saving: Mutex<()>,
}

/// Finds the connection's device row, or makes one that has no keys yet. Returns the device's id.
pub async fn find_or_create_device(conn: &mut AsyncPgConnection, lease: Lease) -> QueryResult<i32> {
    let connection_id = lease.connection_id;
    if let Some(device_id) = find_device(conn, connection_id).await? {
        return Ok(device_id);
    }
    Statement::new(
        "INSERT INTO protocol_devices (connection_id) SELECT ? WHERE (SELECT lease_stands(?, ?))
         ON CONFLICT (connection_id) DO UPDATE SET connection_id = EXCLUDED.connection_id
         RETURNING device_id",
    )
    .bind::<SqlUuid, _>(connection_id)
    .bind::<SqlUuid, _>(connection_id)
    .bind::<BigInt, _>(lease.epoch)
    .get_result(conn)
    .await
    .map(|Made { device_id }| device_id)
}

#[derive(QueryableByName)]
struct Made {
    #[diesel(sql_type = Integer)]
    device_id: i32,
}

/// The connection's device, when it has one.
pub async fn find_device(
    conn: &mut AsyncPgConnection,
    connection_id: Uuid,
) -> QueryResult<Option<i32>> {
    protocol_devices::table
        .filter(protocol_devices::connection_id.eq(connection_id))
        .select(protocol_devices::device_id)
        .first(conn)
        .await
        .optional()
}

/// Deletes the connection's device and with it every key, while the lease stands. A store that is
/// still open over it fails from then on with `DeviceNotFound`.
pub async fn delete_device(conn: &mut AsyncPgConnection, lease: Lease) -> QueryResult<()> {
    Statement::new(
        "DELETE FROM protocol_devices WHERE connection_id = ? AND (SELECT lease_stands(?, ?))",
    )
    .bind::<SqlUuid, _>(lease.connection_id)
    .bind::<SqlUuid, _>(lease.connection_id)
    .bind::<BigInt, _>(lease.epoch)
    .execute(conn)
    .await
    .map(drop)
}

impl Store {
    /// A store over an existing device row (see [`find_or_create_device`]).
    pub fn new(shelf: Shelf, hold: Hold, device_id: i32) -> Self {
        Self {
            shelf,
            connection_id: hold.connection_id(),
            hold,
            device_id,
            saving: Mutex::default(),
        }
    }

    pub fn device_id(&self) -> i32 {
        self.device_id
    }

    /// Runs a query that changes nothing.
    fn read<'a, T, F>(
        &'a self,
        operation: &'static str,
        patience: Patience,
        query: F,
    ) -> impl Future<Output = Result<T>> + Send + 'a
    where
        T: Send + 'a,
        F: Query<T> + 'a,
    {
        self.run(Limit::new(operation, patience), Order::Any, query)
    }

    /// Runs a change. Every write of a store goes through here or through [`Store::write_ratchet`].
    ///
    /// It names its device by [`Store::fenced`], so that nothing is changed by whoever has lost the session.
    /// A change may have taken effect though its attempt failed, so each must be one that can be repeated.
    fn write<'a, T, F>(
        &'a self,
        operation: &'static str,
        patience: Patience,
        change: F,
    ) -> impl Future<Output = Result<T>> + Send + 'a
    where
        T: Send + 'a,
        F: Query<T> + 'a,
    {
        self.run(Limit::new(operation, patience), Order::Any, change)
    }

    /// Runs a change of ratchets, once the pending rows of the messages that may have moved them are
    /// durable (see [`pending_inbound`]).
    ///
    /// The library holds its session cache meanwhile and repeats a failed flush by itself, so the wait
    /// is brief.
    fn write_ratchet<'a, T, F>(
        &'a self,
        operation: &'static str,
        change: F,
    ) -> impl Future<Output = Result<T>> + Send + 'a
    where
        T: Send + 'a,
        F: Query<T> + 'a,
    {
        let limit = Limit::new(operation, Patience::Brief);
        self.run(limit, Order::AfterPendingRows, change)
    }

    /// Makes Signal sessions durable, with those of other accounts; in the same order as [`Store::write_ratchet`].
    async fn keep_sessions(&self, sessions: Arc<Vec<Session>>) -> Result<()> {
        let mut limit = Limit::new("put_sessions", Patience::Brief);
        loop {
            let kept = async {
                drop(
                    self.checkout(Order::AfterPendingRows, limit.deadline())
                        .await?,
                );
                let lease = self.hold.lease();
                let ratchets = &self.shelf.ratchets;
                ratchets
                    .keep(lease, self.device_id, Arc::clone(&sessions))
                    .await
            };
            match kept.await {
                Ok(Kept::Kept) => return Ok(()),
                Ok(Kept::LeaseLost) => return Err(lost(&self.hold)),
                Err(failed) => limit.wait_after(failed, self.device_id).await?,
            }
        }
    }

    async fn run<T, F>(&self, mut limit: Limit, order: Order, statement: F) -> Result<T>
    where
        F: Query<T>,
    {
        loop {
            metrics::counter!("recado_gateway_store_statements_total").increment(1);
            let outcome = match self.checkout(order, limit.deadline()).await {
                Ok(mut conn) => within(statement(&mut conn)).await,
                Err(failed) => Err(failed),
            };
            match outcome {
                Ok(value) => return Ok(value),
                Err(Failed::Query(error)) if fence::is_refusal(&error) => {
                    return Err(lost(&self.hold));
                }
                Err(failed) => limit.wait_after(failed, self.device_id).await?,
            }
        }
    }

    /// A connection from the pool. While it waits for rows it holds none: they need one each.
    async fn checkout(
        &self,
        order: Order,
        deadline: Instant,
    ) -> std::result::Result<Object<AsyncPgConnection>, Failed> {
        let Shelf { pool, inflight, .. } = &self.shelf;
        if let Order::AfterPendingRows = order {
            inflight.settled(self.connection_id, deadline).await?;
            let conn = pool.get().await?;
            // A message that was decrypted just before the library began this flush is on its way to its
            // row: the checkout, a round trip, gave it the time to be seen here.
            if !inflight.is_busy(self.connection_id) {
                return Ok(conn);
            }
            drop(conn);
            inflight.settled(self.connection_id, deadline).await?;
        }
        Ok(pool.get().await?)
    }

    /// Whether the session is still this gateway's, as PostgreSQL knows it now. One that was stopped and reads on
    /// from where it was finds what its successor has written, and would take it for damage.
    pub(crate) async fn is_held(&self) -> bool {
        let asked = self.write("check_lease", Patience::Brief, async |conn| {
            diesel::select(self.fenced()).execute(conn).await
        });
        // Any other error leaves it as it was.
        let _ = asked.await;
        !self.hold.is_lost()
    }

    /// Whether it is known to be another's.
    pub(crate) fn is_lost(&self) -> bool {
        self.hold.is_lost()
    }

    /// The device's id for statements that change something.
    fn fenced(&self) -> Fenced {
        Fenced {
            lease: self.hold.lease(),
            device_id: self.device_id,
        }
    }

    fn seal(&self, place: Place, row: &str, plaintext: &[u8]) -> Vec<u8> {
        place.seal(&self.shelf.keyring, &self.row(row), plaintext)
    }

    fn open(&self, place: Place, row: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        place
            .open(&self.shelf.keyring, &self.row(row), sealed)
            .map_err(|error| StoreError::Serialization(Box::new(error)))
    }

    /// The device is part of every row's name: no device's keys open under another's.
    fn row(&self, row: &str) -> String {
        format!("{}/{row}", self.device_id)
    }
}

/// Ends the session: it is another gateway's.
fn lost(hold: &Hold) -> StoreError {
    hold.lose();
    StoreError::Validation("the lease is lost".to_owned())
}

/// What a write must come after.
#[derive(Clone, Copy)]
enum Order {
    Any,
    AfterPendingRows,
}
