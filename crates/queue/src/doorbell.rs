//! The side that rings. A ring takes half a second at most and may be lost: the caller counts
//! failures and goes on.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool_redis::{Connection, Pool, PoolError};
use redis::RedisError;
use uuid::Uuid;

use crate::keys;

/// The list of due events is cut to its newest so many, less than 5 MB; the poller finds the others, and at
/// a higher price.
pub const MAX_EVENTS: usize = 250_000;

/// What one ring may take.
const LIMIT: Duration = Duration::from_millis(500);
/// After a ring that took too long, rings fail at once for so long: a Redis that hangs must not
/// cost every caller the limit.
const REST: Duration = Duration::from_secs(1);

/// Rings over a pool. Clones are cheap and one and the same.
#[derive(Debug, Clone)]
pub struct Doorbell {
    pool: Pool,
    resting_until: Arc<Mutex<Option<Instant>>>,
}

/// Why nobody was rung.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error("no connection to Redis: {0}")]
    Pool(#[from] PoolError),
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("Redis did not answer within {} ms", LIMIT.as_millis())]
    TimedOut,
    #[error("Redis did not answer a moment ago")]
    Resting,
}

impl Doorbell {
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            resting_until: Arc::default(),
        }
    }

    /// Announces newly inserted events to one of the dispatchers that wait.
    pub async fn ring_events(&self, ids: &[Uuid]) -> Result<(), RingError> {
        if ids.is_empty() {
            return Ok(());
        }
        let newest = &ids[ids.len().saturating_sub(MAX_EVENTS)..];
        let mut ring = redis::pipe();
        // In one transaction, so that nobody ever sees the list longer than its cap.
        ring.atomic();
        let push = ring.cmd("RPUSH").arg(keys::EVENTS_DUE);
        for id in newest {
            push.arg(id.as_bytes());
        }
        ring.ignore();
        ring.ltrim(keys::EVENTS_DUE, -(MAX_EVENTS as isize), -1)
            .ignore();
        self.bounded(async |connection| ring.exec_async(connection).await)
            .await
    }

    /// Tells every gateway that the desired state of some connection changed.
    pub async fn ring_connections(&self) -> Result<(), RingError> {
        self.publish("").await
    }

    /// Tells the gateway that holds the connection that there is something to send.
    pub async fn ring_outbox(&self, connection: Uuid) -> Result<(), RingError> {
        self.publish(&connection.to_string()).await
    }

    async fn publish(&self, message: &str) -> Result<(), RingError> {
        let mut ring = redis::cmd("PUBLISH");
        ring.arg(keys::CONNECTIONS).arg(message);
        self.bounded(async |connection| ring.exec_async(connection).await)
            .await
    }

    async fn bounded(
        &self,
        ring: impl AsyncFnOnce(&mut Connection) -> Result<(), RedisError>,
    ) -> Result<(), RingError> {
        if self.rests() {
            return Err(RingError::Resting);
        }
        let attempt = async {
            let mut connection = self.pool.get().await?;
            Ok(ring(&mut connection).await?)
        };
        let result = within(LIMIT, attempt).await;
        let late = matches!(result, Err(RingError::TimedOut));
        *self.resting() = late.then(|| Instant::now() + REST);
        result
    }

    fn rests(&self) -> bool {
        self.resting().is_some_and(|until| Instant::now() < until)
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.resting_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn within(
    limit: Duration,
    ring: impl Future<Output = Result<(), RingError>>,
) -> Result<(), RingError> {
    tokio::time::timeout(limit, ring)
        .await
        .unwrap_or(Err(RingError::TimedOut))
}
