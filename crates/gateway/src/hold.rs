//! One session's hold on its connection: the lease under which it writes, and the moment it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::lease::Lease;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Clones are one and the same.
#[derive(Debug, Clone)]
pub struct Hold {
    lease: Lease,
    lost: CancellationToken,
    /// Several tasks may find out at once, and one of them says so.
    told: Arc<AtomicBool>,
}

impl Hold {
    pub fn new(lease: Lease) -> Self {
        Self {
            lease,
            lost: CancellationToken::new(),
            told: Arc::default(),
        }
    }

    pub fn lease(&self) -> Lease {
        self.lease
    }

    pub fn connection_id(&self) -> Uuid {
        self.lease.connection_id
    }

    /// Another gateway has the connection: the session ends at once, and writes nothing.
    pub fn lose(&self) {
        if !self.told.swap(true, Ordering::Relaxed) {
            metrics::counter!("recado_gateway_leases_lost_total").increment(1);
            tracing::warn!(connection_id = %self.lease.connection_id, epoch = self.lease.epoch,
                "another gateway has taken a session over");
        }
        self.lost.cancel();
    }

    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Returns when it is lost.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}
