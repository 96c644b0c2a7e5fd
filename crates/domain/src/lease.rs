//! Which gateway holds which session, and the fence around what it writes.
//!
//! A gateway renews one lease for all that it holds ([`crate::gateway`]); a connection's row names its owner
//! and an epoch, which grows with each claim. The deadline decides when others may claim. The epoch decides
//! who may write: a write under an earlier one changes nothing, however late it comes.

use diesel::dsl::{Eq, Filter, Find};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Double, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::connection::{Connection, Desired, Status};
use crate::schema::whatsapp_connections as connections;
use crate::statement::Statement;

/// A gateway's hold on a connection.
#[derive(Debug, Clone, Copy, PartialEq, std::cmp::Eq, Hash)]
pub struct Lease {
    pub connection_id: Uuid,
    pub epoch: i64,
}

/// The constraint that PostgreSQL names when a write under a lost lease is refused.
pub const CONSTRAINT: &str = "lease_stands";

/// The most that is counted of free connections.
const MANY: i64 = 10_000;

/// What a gateway claims for.
#[derive(Debug, Clone, Copy, PartialEq, std::cmp::Eq)]
pub enum Work {
    /// Sessions that are to be connected.
    Connect,
    /// Those that are to end: to be disconnected, or unlinked.
    End,
}

/// That a connection wants an owner now and has none; the index `whatsapp_connections_free` holds these.
macro_rules! is_free {
    () => {
        "owner IS NULL AND (desired = 'connected' OR status <> desired OR deleted_at IS NOT NULL)
             AND (retry_at IS NULL OR retry_at <= now()
                 OR desired <> 'connected' OR deleted_at IS NOT NULL)"
    };
}

type Row = Filter<Find<connections::table, Uuid>, Eq<connections::epoch, i64>>;

impl Lease {
    /// Whether it stands.
    pub async fn is_held(self, conn: &mut AsyncPgConnection) -> QueryResult<bool> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Bool)]
            held: bool,
        }
        let row: Row = Statement::new("SELECT lease_is_held(?, ?) AS held")
            .bind::<SqlUuid, _>(self.connection_id)
            .bind::<BigInt, _>(self.epoch)
            .get_result(conn)
            .await?;
        Ok(row.held)
    }

    /// The connection's row, while the lease stands.
    pub(crate) fn row(self) -> Row {
        connections::table
            .find(self.connection_id)
            .filter(connections::epoch.eq(self.epoch))
    }
}

/// Gives sessions up: whoever looks next may claim them. Those that are another's by now stay so.
pub async fn release(conn: &mut AsyncPgConnection, leases: &[Lease]) -> QueryResult<usize> {
    let ids: Vec<Uuid> = leases.iter().map(|lease| lease.connection_id).collect();
    let epochs: Vec<i64> = leases.iter().map(|lease| lease.epoch).collect();
    Statement::new(
        "UPDATE whatsapp_connections AS c SET owner = NULL, owner_since = now()
         FROM unnest(?, ?) AS lease (id, epoch) WHERE c.id = lease.id AND c.epoch = lease.epoch",
    )
    .bind::<Array<SqlUuid>, _>(&ids)
    .bind::<Array<BigInt>, _>(&epochs)
    .execute(conn)
    .await
}

impl Connection {
    /// The hold that this row shows.
    pub fn lease(&self) -> Lease {
        Lease {
            connection_id: self.id,
            epoch: self.epoch,
        }
    }

    /// All that a gateway holds.
    pub async fn held(conn: &mut AsyncPgConnection, gateway: Uuid) -> QueryResult<Vec<Self>> {
        connections::table
            .filter(connections::owner.eq(gateway))
            .select(Self::as_select())
            .load(conn)
            .await
    }

    /// Claims up to so many free connections whose time has come, first those before whose code somebody sits.
    /// No write of an earlier owner is under way any more when this returns.
    pub async fn claim(
        conn: &mut AsyncPgConnection,
        gateway: Uuid,
        work: Work,
        limit: usize,
    ) -> QueryResult<Vec<Self>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        conn.transaction(async |conn| {
            let free: Vec<Id> = Statement::new(concat!(
                "SELECT id FROM whatsapp_connections WHERE ",
                is_free!(),
                " AND (desired = 'connected' AND deleted_at IS NULL) = ?
                 ORDER BY jid IS NOT NULL, created_at LIMIT ?
                 FOR NO KEY UPDATE SKIP LOCKED"
            ))
            .bind::<Bool, _>(work == Work::Connect)
            .bind::<BigInt, _>(limit)
            .load(conn)
            .await?;
            let free: Vec<Uuid> = free.into_iter().map(|Id { id }| id).collect();
            if free.is_empty() {
                return Ok(Vec::new());
            }
            diesel::update(connections::table.filter(connections::id.eq_any(&free)))
                .set((
                    connections::owner.eq(gateway),
                    connections::owner_since.eq(diesel::dsl::now),
                    connections::epoch.eq(connections::epoch + 1),
                ))
                .execute(conn)
                .await?;
            Statement::new("SELECT lease_settle(?)")
                .bind::<Array<SqlUuid>, _>(&free)
                .execute(conn)
                .await?;
            // What the last owner wrote into the row itself is in it now.
            connections::table
                .filter(connections::id.eq_any(&free))
                .select(Self::as_select())
                .load(conn)
                .await
        })
        .await
    }

    /// How many connections want an owner now and have none; counted up to ten thousand.
    pub async fn free(conn: &mut AsyncPgConnection) -> QueryResult<usize> {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = BigInt)]
            count: i64,
        }
        let Count { count } = Statement::new(concat!(
            "SELECT count(*) AS count FROM (SELECT FROM whatsapp_connections WHERE ",
            is_free!(),
            " LIMIT ?) AS free"
        ))
        .bind::<BigInt, _>(MANY)
        .get_result(conn)
        .await?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Tells up to so many rows that say `connected`, and have had no owner for so many seconds, that they
    /// are not. Returns the new events' ids, to be rung.
    pub async fn tell_abandoned(
        conn: &mut AsyncPgConnection,
        seconds: f64,
        limit: i64,
    ) -> QueryResult<Vec<Uuid>> {
        #[derive(QueryableByName)]
        struct Held {
            #[diesel(sql_type = SqlUuid)]
            id: Uuid,
            #[diesel(sql_type = BigInt)]
            epoch: i64,
        }
        let abandoned: Vec<Held> = Statement::new(
            "SELECT id, epoch FROM whatsapp_connections
             WHERE owner IS NULL AND desired = 'connected' AND status = 'connected'
                 AND owner_since < now() - make_interval(secs => ?)
             LIMIT ?",
        )
        .bind::<Double, _>(seconds)
        .bind::<BigInt, _>(limit)
        .load(conn)
        .await?;
        let mut events = Vec::new();
        for Held { id, epoch } in abandoned {
            let lease = Lease {
                connection_id: id,
                epoch,
            };
            let (status, reason) = (Status::Reconnecting, Some("connection_lost"));
            events.extend(Self::transition(conn, lease, status, reason).await?);
        }
        Ok(events)
    }

    /// Whether there is something that a gateway has to do for it.
    pub fn wants_an_owner(&self) -> bool {
        self.is(Desired::Connected) || self.status != self.desired || self.deleted_at.is_some()
    }
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}
