//! The gateways that run. Each renews one lease for all its sessions, every second; one that does so no
//! longer has lost them.

use diesel::prelude::*;
use diesel::sql_types::{Bool, Double, Integer, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::statement::Statement;

/// What a gateway says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Drawn at its start.
    pub id: Uuid,
    /// For operators.
    pub name: String,
    /// Sessions that it can hold.
    pub capacity: i32,
    /// Sessions that it starts per second.
    pub connect_rate: i32,
    pub sessions: i32,
    /// It is about to end, and claims no more.
    pub draining: bool,
    pub lease_seconds: f64,
}

/// What others need to know of a gateway that runs.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Peer {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = Integer)]
    pub capacity: i32,
    #[diesel(sql_type = Integer)]
    pub connect_rate: i32,
    #[diesel(sql_type = Integer)]
    pub sessions: i32,
    #[diesel(sql_type = Bool)]
    pub draining: bool,
}

/// That the gateway `g` runs no more: it has not renewed for the time of its lease, or for three seconds when
/// its connection is gone too, as it is when the process was killed. Nor does one whose connection is gone and
/// that renewed long from now: since then the clock was set back, and it would be alive until that time comes.
macro_rules! is_dead {
    () => {
        "CASE WHEN EXISTS (SELECT FROM pg_stat_activity AS a
                 WHERE a.pid = g.backend AND a.backend_start = g.backend_start)
             THEN g.renewed_at < now() - make_interval(secs => g.lease_seconds)
             ELSE g.renewed_at NOT BETWEEN now() - interval '3 seconds' AND now() + interval '1 minute'
         END"
    };
}

impl Gateway {
    /// Renews the lease, by the connection that it is bound to.
    pub async fn renew(&self, conn: &mut AsyncPgConnection) -> QueryResult<()> {
        Statement::new(
            "INSERT INTO whatsapp_gateways AS g (id, name, capacity, connect_rate, sessions, draining,
                 lease_seconds, backend, backend_start)
             SELECT ?, ?, ?, ?, ?, ?, ?, pid, backend_start
             FROM pg_stat_activity WHERE pid = pg_backend_pid()
             ON CONFLICT (id) DO UPDATE SET sessions = EXCLUDED.sessions, draining = EXCLUDED.draining,
                 backend = EXCLUDED.backend, backend_start = EXCLUDED.backend_start, renewed_at = now()",
        )
        .bind::<SqlUuid, _>(self.id)
        .bind::<Text, _>(&self.name)
        .bind::<Integer, _>(self.capacity)
        .bind::<Integer, _>(self.connect_rate)
        .bind::<Integer, _>(self.sessions)
        .bind::<Bool, _>(self.draining)
        .bind::<Double, _>(self.lease_seconds)
        .execute(conn)
        .await
        .map(drop)
    }

    /// How the others see it.
    pub fn peer(&self) -> Peer {
        Peer {
            id: self.id,
            capacity: self.capacity,
            connect_rate: self.connect_rate,
            sessions: self.sessions,
            draining: self.draining,
        }
    }

    /// The gateways that run.
    pub async fn live(conn: &mut AsyncPgConnection) -> QueryResult<Vec<Peer>> {
        Statement::new(concat!(
            "SELECT id, capacity, connect_rate, sessions, draining FROM whatsapp_gateways AS g WHERE NOT (",
            is_dead!(),
            ") ORDER BY id"
        ))
        .load(conn)
        .await
    }

    /// Sets free what gateways hold that run no more, and forgets them; returns how many connections.
    ///
    /// A row that somebody has locked waits for the next time: a process that was stopped in mid-transaction would
    /// hold up all gateways, and all that it held.
    ///
    /// Not to be called by one who was cut off from PostgreSQL himself a moment ago: the others may
    /// have been so too, and are about to renew.
    pub async fn reap(conn: &mut AsyncPgConnection) -> QueryResult<usize> {
        let freed = Statement::new(concat!(
            "WITH dead AS (SELECT id FROM whatsapp_gateways AS g WHERE ",
            is_dead!(),
            " FOR UPDATE SKIP LOCKED),
             held AS (SELECT id FROM whatsapp_connections WHERE owner IN (SELECT id FROM dead)
                 FOR NO KEY UPDATE SKIP LOCKED),
             forgotten AS (DELETE FROM whatsapp_gateways AS g WHERE g.id IN (SELECT id FROM dead)
                 AND NOT EXISTS (SELECT FROM whatsapp_connections AS c
                     WHERE c.owner = g.id AND c.id NOT IN (SELECT id FROM held)))
             UPDATE whatsapp_connections SET owner = NULL, owner_since = now()
             WHERE id IN (SELECT id FROM held)"
        ))
        .execute(conn)
        .await?;
        Ok(freed)
    }

    /// Ends the lease: the gateway holds nothing any more.
    pub async fn retire(conn: &mut AsyncPgConnection, id: Uuid) -> QueryResult<()> {
        Statement::new(
            "WITH gone AS (DELETE FROM whatsapp_gateways WHERE id = ?)
             UPDATE whatsapp_connections SET owner = NULL, owner_since = now() WHERE owner = ?",
        )
        .bind::<SqlUuid, _>(id)
        .bind::<SqlUuid, _>(id)
        .execute(conn)
        .await
        .map(drop)
    }
}
