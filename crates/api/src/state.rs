//! What all requests share.

use std::sync::Arc;
use std::time::Duration;

use domain::keyring::Keyring;
use queue::{Doorbell, RingError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::ReceiverConfig;
use crate::database::{Connection, Database};
use crate::error::ApiError;
use crate::limits::Limits;
use crate::media::Media;
use crate::streams::Streams;

pub(crate) struct State {
    pub(crate) database: Database,
    pub(crate) doorbell: Doorbell,
    pub(crate) keyring: Keyring,
    pub(crate) receivers: ReceiverConfig,
    pub(crate) media: Media,
    pub(crate) limits: Limits,
    /// Files that are in memory on their way to the database.
    pub(crate) uploads: Arc<Semaphore>,
    pub(crate) streams: Streams,
    /// No new work is to be taken, and what has no end of its own is to end.
    pub(crate) closing: CancellationToken,
    pub(crate) gateway_wait: Duration,
    pub(crate) attempt_wait: Duration,
}

impl State {
    /// A connection to the database, to be given back before anything else is waited for.
    pub(crate) async fn connection(&self) -> Result<Connection, ApiError> {
        self.database.connection().await
    }

    /// Announces an event that is due. A ring that is lost costs the event some seconds, since the
    /// poller finds it too.
    pub(crate) async fn ring_event(&self, id: Uuid) {
        missed("events", self.doorbell.ring_events(&[id]).await);
    }

    /// Tells the gateways that a connection is to change. One that is not rung looks by itself.
    pub(crate) async fn ring_gateways(&self) {
        missed("connections", self.doorbell.ring_connections().await);
    }

    /// Tells the gateway that holds the connection that there is something to send. One that is not rung
    /// looks by itself.
    pub(crate) async fn ring_outbox(&self, connection: Uuid) {
        missed("outbox", self.doorbell.ring_outbox(connection).await);
    }
}

fn missed(bell: &'static str, rung: Result<(), RingError>) {
    if let Err(error) = rung {
        tracing::warn!(bell, "not rung: {error}");
        metrics::counter!("recado_api_rings_failed_total", "bell" => bell).increment(1);
    }
}
