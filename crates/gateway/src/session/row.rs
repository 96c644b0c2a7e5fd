//! What a session writes about itself. While PostgreSQL is away each write waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diesel::result::{Error, QueryResult};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool::PoolError;
use domain::connection::{Code, Connection, Desired, Status};
use domain::failure::{Failure, classify};
use domain::lease::Lease;
use runtime::postgres::Pool;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use whatsapp_rust::Client;

use super::{Goal, Shared};
use crate::backoff::Backoff;
use crate::bell::Bell;
use crate::hold::Hold;
use crate::store;

/// Attempts at a write whose error is neither the connection's nor surely the row's.
const UNCLEAR_TRIES: u32 = 10;
/// What one attempt may take: a server that hangs must not hold up the gateway's end.
const ATTEMPT: Duration = Duration::from_secs(5);
/// A reason that was written so lately stands.
const EXPLAINED: Duration = Duration::from_secs(60);

pub(super) struct Row {
    id: Uuid,
    hold: Hold,
    pool: Pool,
    bell: Bell,
    goal: watch::Receiver<Goal>,
    status: watch::Sender<Status>,
    /// The row says so, as the last gateway left it.
    claims_connected: AtomicBool,
    /// What this session said last, and when.
    said: Mutex<Option<(&'static str, Option<&'static str>, Instant)>>,
}

impl Row {
    pub(super) fn new(
        connection: &Connection,
        hold: &Hold,
        shared: &Shared,
        goal: watch::Receiver<Goal>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            id: connection.id,
            hold: hold.clone(),
            pool: shared.pool.clone(),
            bell: shared.bell.clone(),
            goal,
            status,
            claims_connected: AtomicBool::new(connection.status == Status::Connected.as_str()),
            said: Mutex::default(),
        }
    }

    /// How the session stands.
    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Whether the row says `connected` because the last gateway left it so.
    pub(super) fn claims_connected(&self) -> bool {
        self.claims_connected.load(Ordering::Relaxed)
    }

    /// Whether the row says `connected`.
    pub(super) fn says_connected(&self) -> bool {
        self.claims_connected() || *self.status.borrow() == Status::Connected
    }

    pub(super) async fn change(
        &self,
        status: Status,
        reason: Option<&'static str>,
    ) -> anyhow::Result<()> {
        self.write(Change::Transition(status, reason)).await?;
        self.changed(status, reason);
        Ok(())
    }

    /// WhatsApp has turned the session away for so long.
    pub(super) async fn pause(&self, reason: &'static str, pause: Duration) -> anyhow::Result<()> {
        self.write(Change::Pause(reason, pause)).await?;
        self.changed(Status::Reconnecting, Some(reason));
        Ok(())
    }

    /// Says why there is no session, unless it has said so of late or there is another reason. Who asks for a
    /// session anew resets the reason, hence again from time to time.
    pub(super) async fn explain(&self, reason: &'static str) -> anyhow::Result<()> {
        let said = *self.said();
        match said {
            Some((_, Some(_), at)) if at.elapsed() < EXPLAINED => Ok(()),
            Some((_, Some(known), _)) => self.change(Status::Reconnecting, Some(known)).await,
            _ => self.change(Status::Reconnecting, Some(reason)).await,
        }
    }

    fn said(&self) -> MutexGuard<'_, Option<(&'static str, Option<&'static str>, Instant)>> {
        // No code that holds the lock can leave it half changed.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, status: Status, reason: Option<&'static str>) {
        self.claims_connected.store(false, Ordering::Relaxed);
        self.status.send_replace(status);
        self.note(status.as_str(), reason);
    }

    fn note(&self, status: &'static str, reason: Option<&'static str>) {
        let before = self.said().replace((status, reason, Instant::now()));
        if before.is_some_and(|(was, why, _)| (was, why) == (status, reason)) {
            return;
        }
        metrics::counter!("recado_gateway_transitions_total",
            "status" => status, "reason" => reason.unwrap_or_default())
        .increment(1);
        tracing::info!(connection_id = %self.id, status, reason, "a session changed");
    }

    /// Writes again that the session is connected, where it is.
    pub(super) async fn restate(&self) -> anyhow::Result<()> {
        let status = *self.status.borrow();
        match status {
            Status::Connected => self.change(status, None).await,
            _ => Ok(()),
        }
    }

    /// Writes what the client wanted, unless it wants something else by now.
    pub(super) async fn fulfil(
        &self,
        desired: Desired,
        reason: Option<&'static str>,
    ) -> anyhow::Result<()> {
        self.write(Change::Fulfil(desired, reason)).await?;
        self.note(desired.as_str(), reason);
        Ok(())
    }

    /// Shows a code that is good until then.
    pub(super) async fn show(&self, code: Code<'_>, until: Instant) -> anyhow::Result<()> {
        if self.claims_connected() {
            self.change(Status::Reconnecting, None).await?;
        }
        self.write(Change::Show(code, until)).await?;
        // Whatever was wrong is so no longer.
        *self.said() = None;
        Ok(())
    }

    /// Keeps whose device it is.
    pub(super) async fn identify(&self, client: &Client) -> anyhow::Result<()> {
        let Some(pn) = client.pn() else {
            return Ok(());
        };
        let (jid, lid) = (pn.to_string(), client.lid().map(|lid| lid.to_string()));
        self.write(Change::Identify(&jid, lid.as_deref())).await
    }

    pub(super) async fn delete_keys(&self) -> anyhow::Result<()> {
        self.write(Change::DeleteKeys).await
    }

    /// Removes the row where the client has deleted the connection.
    pub(super) async fn remove_if_deleted(&self) -> anyhow::Result<()> {
        self.write(Change::Remove).await
    }

    /// Returns the new events.
    async fn attempt(&self, change: &Change<'_>) -> Result<Vec<Uuid>, Problem> {
        let mut conn = self.pool.get().await.map_err(Problem::Pool)?;
        change
            .apply(&mut conn, self.hold.lease())
            .await
            .map_err(Problem::Query)
    }

    /// Writes a change once PostgreSQL takes it, and rings for its events; an error when the row itself is
    /// at fault, or when the gateway ends first.
    async fn write(&self, change: Change<'_>) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        let mut unclear = 0;
        loop {
            let problem = match timeout(ATTEMPT, self.attempt(&change)).await {
                Ok(Ok(events)) => {
                    self.bell.ring(events);
                    return Ok(());
                }
                Ok(Err(Problem::Query(error))) => {
                    match classify(&error) {
                        Failure::Permanent => return Err(error.into()),
                        Failure::Unclear => unclear += 1,
                        Failure::Transient => unclear = 0,
                    }
                    error.into()
                }
                Ok(Err(Problem::Pool(error))) => error.into(),
                Err(_) => anyhow::anyhow!("no answer within {ATTEMPT:?}"),
            };
            let leaves = *self.goal.borrow() == Goal::HandedOver || self.hold.is_lost();
            if leaves || unclear >= UNCLEAR_TRIES {
                return Err(problem);
            }
            backoff.pause().await;
        }
    }
}

enum Problem {
    Pool(PoolError),
    Query(Error),
}

enum Change<'a> {
    Transition(Status, Option<&'a str>),
    Pause(&'a str, Duration),
    Fulfil(Desired, Option<&'a str>),
    Show(Code<'a>, Instant),
    Identify(&'a str, Option<&'a str>),
    DeleteKeys,
    Remove,
}

impl Change<'_> {
    /// Returns the new events.
    async fn apply(&self, conn: &mut AsyncPgConnection, lease: Lease) -> QueryResult<Vec<Uuid>> {
        match *self {
            Self::Transition(status, reason) => {
                return Connection::transition(conn, lease, status, reason).await;
            }
            Self::Pause(reason, pause) => {
                return Connection::pause(conn, lease, reason, pause.as_secs_f64()).await;
            }
            Self::Fulfil(desired, reason) => {
                return Connection::fulfil(conn, lease, desired, reason).await;
            }
            Self::Show(code, until) => {
                let left = until.saturating_duration_since(Instant::now());
                return Connection::show_code(conn, lease, code, left.as_secs_f64()).await;
            }
            Self::Identify(jid, lid) => drop(Connection::identify(conn, lease, jid, lid).await?),
            Self::DeleteKeys => {
                store::delete_device(conn, lease).await?;
                // Also where the row's state is not to change: a wish to connect may have come meanwhile.
                Connection::forget_device(conn, lease).await?;
            }
            Self::Remove => drop(Connection::remove(conn, lease).await?),
        }
        Ok(Vec::new())
    }
}
