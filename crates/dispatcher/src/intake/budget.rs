use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many events may be in hand: claimed, and neither recorded nor given back.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
}

impl Budget {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(size)),
        }
    }

    /// Waits for room for one, and takes what room there is for up to `most`.
    pub(crate) async fn take(&self, most: usize) -> OwnedSemaphorePermit {
        let one = Arc::clone(&self.free).acquire_owned().await;
        let mut room = one.expect("the budget is never closed");
        let more = self.free.available_permits().min(most - 1);
        // Somebody else may have taken it in between; then one it is.
        if let Ok(more) = Arc::clone(&self.free).try_acquire_many_owned(more as u32) {
            room.merge(more);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_taken_is_bounded_and_comes_back() {
        let budget = Budget::new(10);
        let first = budget.take(6).await;
        let second = budget.take(6).await;
        assert_eq!((first.num_permits(), second.num_permits()), (6, 4));
        let third = tokio::time::timeout(Duration::from_millis(10), budget.take(6)).await;
        assert!(third.is_err());
        drop(first);
        assert_eq!(budget.take(100).await.num_permits(), 6);
    }
}
