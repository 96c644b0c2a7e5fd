//! Two steps to stop. Soft: take no new work, finish what is in hand. Hard: drop it. A first
//! SIGTERM or SIGINT is soft; a second one, or the end of the grace period, is hard.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Handed to everything that must stop in an orderly way. Clones are one and the same.
#[derive(Debug, Clone)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
    tracker: TaskTracker,
    grace: Duration,
}

impl Shutdown {
    /// A shutdown that nothing has asked for, and that no signal reaches yet. `grace` is the time
    /// from soft to hard.
    pub fn new(grace: Duration) -> Self {
        let hard = CancellationToken::new();
        Self {
            soft: hard.child_token(),
            hard,
            tracker: TaskTracker::new(),
            grace,
        }
    }

    /// Cancelled when no new work is to be taken.
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Cancelled when work in hand is to be dropped; `soft` is cancelled by then.
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// The time from soft to hard.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// The tasks that the process waits for before it ends.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Spawns a task that the process waits for before it ends.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tracker.spawn(future)
    }

    /// Starts to obey SIGTERM and SIGINT, and to count the grace period once `soft` is cancelled,
    /// whoever cancelled it.
    pub fn listen(&self) -> io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let this = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => tracing::info!("SIGTERM: stopping"),
                _ = int.recv() => tracing::info!("SIGINT: stopping"),
                () = this.soft.cancelled() => {}
            }
            this.soft.cancel();
            tokio::select! {
                _ = term.recv() => tracing::warn!("a second signal: stopping at once"),
                _ = int.recv() => tracing::warn!("a second signal: stopping at once"),
                () = tokio::time::sleep(this.grace) => {
                    tracing::warn!(grace = ?this.grace, "the grace period is over: stopping at once");
                }
                () = this.hard.cancelled() => {}
            }
            this.hard.cancel();
        });
        Ok(())
    }

    /// Stops softly and waits for the tracked tasks; whether they ended before the hard stop.
    pub async fn finish(&self) -> bool {
        self.soft.cancel();
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => true,
            () = self.hard.cancelled() => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hard_implies_soft_and_not_the_other_way() {
        let shutdown = Shutdown::new(Duration::MAX);
        shutdown.soft().cancel();
        assert!(!shutdown.hard().is_cancelled());
        let shutdown = Shutdown::new(Duration::MAX);
        shutdown.hard().cancel();
        assert!(shutdown.soft().is_cancelled());
    }

    #[tokio::test]
    async fn finish_waits_for_the_work_in_hand() {
        let shutdown = Shutdown::new(Duration::MAX);
        let soft = shutdown.soft().clone();
        let work = shutdown.spawn(async move { soft.cancelled().await });
        assert!(shutdown.finish().await);
        work.await.unwrap();
    }

    #[tokio::test]
    async fn the_grace_period_ends_what_does_not_end_by_itself() {
        let grace = Duration::from_millis(50);
        let shutdown = Shutdown::new(grace);
        shutdown.listen().unwrap();
        shutdown.spawn(std::future::pending::<()>());
        let start = tokio::time::Instant::now();
        assert!(!shutdown.finish().await);
        assert!(start.elapsed() >= grace);
    }
}
