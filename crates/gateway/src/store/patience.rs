//! How long an operation waits while PostgreSQL is away.
//!
//! It depends on what the library does with an error. It nacks a message whose session it could not
//! load, and the server then drops it; it stops saving the device after ten failures; it forgets message
//! secrets and app state keys that it could not store: those wait until PostgreSQL is back. It repeats a
//! failed flush of sessions, but holds locks meanwhile that a reconnect needs; what is left is a cache of
//! what the server can tell again: those give up after some seconds. Nothing waits for a row whose own
//! data is at fault, except where the data were made harmless before.

use std::fmt;
use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool::PoolError;
use domain::failure::{Failure, classify};
use tokio::time::Instant;
use whatsapp_rust::wacore::store::error::StoreError;

/// Long enough for a restart of PostgreSQL, shorter than the library's own five seconds for a teardown.
const BRIEF: Duration = Duration::from_secs(3);
/// A statement that takes longer is given up.
const LONGEST_STATEMENT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often in a row PostgreSQL may answer with an error of unclear cause before it is taken for good.
const UNCLEAR: u32 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as it takes, whatever the error, unless the device is gone.
    Unending,
    /// As long as PostgreSQL is away; an error that it gives again and again is returned.
    Outage,
    /// Some seconds.
    Brief,
}

/// An async closure over a connection that can be run again. Its future can be sent, for which `AsyncFn`
/// itself has no words yet.
pub(super) trait Query<T>:
    for<'c> AsyncFn(&'c mut AsyncPgConnection) -> QueryResult<T>
    + for<'c> Attempt<&'c mut AsyncPgConnection, T, Fut: Send>
    + Send
    + Sync
{
}

impl<F, T> Query<T> for F where
    F: for<'c> AsyncFn(&'c mut AsyncPgConnection) -> QueryResult<T>
        + for<'c> Attempt<&'c mut AsyncPgConnection, T, Fut: Send>
        + Send
        + Sync
{
}

pub(super) trait Attempt<C, T>: Fn(C) -> <Self as Attempt<C, T>>::Fut {
    type Fut: Future<Output = QueryResult<T>>;
}

impl<F, C, T, Fut> Attempt<C, T> for F
where
    F: Fn(C) -> Fut,
    Fut: Future<Output = QueryResult<T>>,
{
    type Fut = Fut;
}

/// Why an attempt failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// There was no connection to run it on.
    Unreachable(Box<dyn std::error::Error + Send + Sync>),
    Query(Error),
    Closed,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::Query(error) => error.fmt(f),
            Self::Closed => f.write_str("the pool is closed"),
        }
    }
}

impl From<PoolError> for Failed {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Closed => Self::Closed,
            error => Self::Unreachable(Box::new(error)),
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Query(error)
    }
}

/// One operation's attempts.
pub(super) struct Limit {
    operation: &'static str,
    patience: Patience,
    since: Instant,
    pause: Duration,
    unclear: u32,
    told: bool,
}

impl Limit {
    pub(super) fn new(operation: &'static str, patience: Patience) -> Self {
        Self {
            operation,
            patience,
            since: Instant::now(),
            pause: FIRST_PAUSE,
            unclear: 0,
            told: false,
        }
    }

    /// When a brief operation gives up.
    pub(super) fn deadline(&self) -> Instant {
        self.since + BRIEF
    }

    /// Returns after a pause when the operation should be tried again, and the error when not.
    pub(super) async fn wait_after(
        &mut self,
        failed: Failed,
        device_id: i32,
    ) -> Result<(), StoreError> {
        if self.gives_up(&failed) {
            return Err(store_error(failed, device_id));
        }
        if !self.told {
            self.told = true;
            tracing::warn!(
                operation = self.operation,
                device_id,
                error = %failed,
                "the protocol store waits for PostgreSQL"
            );
            metrics::counter!("recado_gateway_store_waits_total", "operation" => self.operation)
                .increment(1);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    fn gives_up(&mut self, failed: &Failed) -> bool {
        let failure = match failed {
            Failed::Closed => return true,
            Failed::Unreachable(_) => Failure::Transient,
            Failed::Query(error) => classify(error),
        };
        self.unclear = match failure {
            Failure::Permanent => return true,
            Failure::Transient => 0,
            Failure::Unclear => self.unclear + 1,
        };
        match self.patience {
            Patience::Unending => false,
            Patience::Outage => self.unclear >= UNCLEAR,
            Patience::Brief => self.unclear >= UNCLEAR || Instant::now() >= self.deadline(),
        }
    }
}

fn store_error(failed: Failed, device_id: i32) -> StoreError {
    match failed {
        Failed::Unreachable(error) => StoreError::Connection(error),
        Failed::Closed => StoreError::Connection("the pool is closed".into()),
        Failed::Query(Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _)) => {
            StoreError::DeviceNotFound(device_id)
        }
        Failed::Query(error) => StoreError::Database(Box::new(error)),
    }
}

/// The outcome of a statement. A server that has stopped must not stop those who wait for it: the connection is not
/// used again, since it fails the pool's check.
pub(super) async fn within<T>(
    statement: impl Future<Output = QueryResult<T>>,
) -> Result<T, Failed> {
    match tokio::time::timeout(LONGEST_STATEMENT, statement).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(Failed::Unreachable("no answer in time".into())),
    }
}
