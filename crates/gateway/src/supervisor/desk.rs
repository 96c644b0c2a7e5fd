//! What a gateway asks PostgreSQL about sessions, and tells it: one question a second, on a connection of its
//! own, by which the others can tell whether the process is still there.

use std::time::Duration;

use anyhow::Context;
use diesel_async::AsyncPgConnection;
use domain::connection::Connection;
use domain::gateway::{Gateway, Peer};
use domain::lease::{self, Lease, Work};
use domain::outbox::Outgoing;
use runtime::config::DatabaseConfig;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::gate::Confirmed;
use crate::session::RESTORE;

/// Who was cut off from PostgreSQL takes nothing from others before it was back for so long: they were
/// cut off too, and renew first.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// What one question may take, and at the end, when the process has little time left.
const ANSWER: Duration = Duration::from_secs(5);
const LAST_ANSWER: Duration = Duration::from_secs(2);
/// Rows without an owner that one look corrects.
const TOLD_AT_ONCE: i64 = 100;

pub(super) struct Desk {
    database: DatabaseConfig,
    conn: Option<AsyncPgConnection>,
    confirmed: Confirmed,
    gateway: Gateway,
    /// Since when each look had an answer.
    reachable: Option<Reachable>,
}

#[derive(Debug, Clone, Copy)]
struct Reachable {
    since: Instant,
    last: Instant,
}

/// How things are.
#[derive(Debug)]
pub(super) struct View {
    /// What this gateway holds.
    pub(super) held: Vec<Connection>,
    /// This gateway as the others see it.
    pub(super) me: Peer,
    /// The gateways that run.
    pub(super) peers: Vec<Peer>,
    /// How many connections want an owner and have none.
    pub(super) free: usize,
    /// Connections of its own that have something to send.
    pub(super) sending: Vec<Uuid>,
    /// Events to be rung.
    pub(super) events: Vec<Uuid>,
}

impl Desk {
    pub(super) fn new(database: DatabaseConfig, gateway: Gateway, confirmed: Confirmed) -> Self {
        Self {
            database,
            conn: None,
            confirmed,
            gateway,
            reachable: None,
        }
    }

    /// Renews the lease, takes from the dead, and looks.
    pub(super) async fn look(&mut self, sessions: usize, draining: bool) -> anyhow::Result<View> {
        let asked = Instant::now();
        self.gateway.sessions = i32::try_from(sessions).unwrap_or(i32::MAX);
        self.gateway.draining = draining;
        let gateway = self.gateway.clone();
        let reaps = self.was_reachable(asked) && !draining;
        let view = self
            .ask(async |conn| {
                gateway.renew(conn).await?;
                if reaps && Gateway::reap(conn).await? > 0 {
                    metrics::counter!("recado_gateway_takeovers_total").increment(1);
                }
                let held = Connection::held(conn, gateway.id).await?;
                let free = Connection::free(conn).await?;
                let sending = Outgoing::waiting(conn, gateway.id).await?;
                let events = match free > 0 && reaps {
                    true => {
                        let seconds = RESTORE.as_secs_f64();
                        Connection::tell_abandoned(conn, seconds, TOLD_AT_ONCE).await?
                    }
                    false => Vec::new(),
                };
                Ok(View {
                    held,
                    me: gateway.peer(),
                    peers: Gateway::live(conn).await?,
                    free,
                    sending,
                    events,
                })
            })
            .await;
        match &view {
            Ok(_) => self.answered(asked),
            Err(_) => self.reachable = None,
        }
        view
    }

    pub(super) async fn claim(
        &mut self,
        work: Work,
        limit: usize,
    ) -> anyhow::Result<Vec<Connection>> {
        let id = self.gateway.id;
        self.ask(async |conn| Ok(Connection::claim(conn, id, work, limit).await?))
            .await
    }

    pub(super) async fn release(&mut self, leases: &[Lease]) -> anyhow::Result<()> {
        self.ask(async |conn| Ok(lease::release(conn, leases).await?))
            .await?;
        Ok(())
    }

    /// Gives up all that is left, and is gone.
    pub(super) async fn retire(&mut self) -> anyhow::Result<()> {
        let id = self.gateway.id;
        self.ask(async |conn| Ok(Gateway::retire(conn, id).await?))
            .await
    }

    /// A connection of which an answer was not had whole is not used again.
    async fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(&mut AsyncPgConnection) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let kept = self.conn.take();
        let attempt = async {
            let mut conn = match kept {
                Some(conn) => conn,
                None => runtime::postgres::connect(&self.database).await?,
            };
            let answer = question(&mut conn).await?;
            anyhow::Ok((conn, answer))
        };
        let limit = match self.gateway.draining {
            true => LAST_ANSWER,
            false => ANSWER,
        };
        let (conn, answer) = timeout(limit, attempt)
            .await
            .with_context(|| format!("no answer within {limit:?}"))??;
        self.conn = Some(conn);
        Ok(answer)
    }

    fn was_reachable(&self, now: Instant) -> bool {
        self.reachable.is_some_and(|reachable| {
            now - reachable.last < HEARTBEAT && now - reachable.since >= HEARTBEAT
        })
    }

    fn answered(&mut self, asked: Instant) {
        let since = match self.reachable {
            // A process that was stopped was as good as cut off.
            Some(before) if asked - before.last < HEARTBEAT => before.since,
            _ => asked,
        };
        self.reachable = Some(Reachable { since, last: asked });
        self.confirmed.at(asked);
    }
}
