//! Rings for what was committed. Nobody waits for it: what is not rung, the dispatchers' poller finds.

use std::time::Duration;

use queue::Doorbell;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

/// Commits whose events wait to be rung. More are not rung at all.
const WAITING: usize = 256;
/// Between two warnings of a Redis that is away.
const SILENCE: Duration = Duration::from_secs(30);

/// Where committed events are announced. Clones ring one bell; its task ends with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct Bell(mpsc::Sender<Vec<Uuid>>);

impl Bell {
    /// A bell and the task that rings it.
    pub(crate) fn new(doorbell: Doorbell) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), ring_all(doorbell, receiver))
    }

    pub(crate) fn ring(&self, events: Vec<Uuid>) {
        if !events.is_empty() && self.0.try_send(events).is_err() {
            failed();
        }
    }
}

async fn ring_all(doorbell: Doorbell, mut committed: mpsc::Receiver<Vec<Uuid>>) {
    let mut gathered = Vec::new();
    let mut warned: Option<Instant> = None;
    while committed.recv_many(&mut gathered, WAITING).await > 0 {
        let events: Vec<Uuid> = gathered.drain(..).flatten().collect();
        if let Err(error) = doorbell.ring_events(&events).await {
            failed();
            if warned.is_none_or(|at| at.elapsed() >= SILENCE) {
                warned = Some(Instant::now());
                tracing::warn!(%error, "events were not rung; the poller will find them");
            }
        }
    }
}

fn failed() {
    metrics::counter!("recado_doorbell_failures_total").increment(1);
}
