//! Memory for files that are being brought and delivered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// KiB of base64 in this process. While it is sent it is there twice: in its event and in the body.
const WHOLE: u32 = 32 * 1024;
/// Of one client: what its receivers are slow to take leaves the others enough.
const SHARE: u32 = WHOLE / 4;

pub(super) struct Memory {
    whole: Arc<Semaphore>,
    /// Of the clients that have some, or wait for it.
    shares: Mutex<HashMap<i32, Arc<Semaphore>>>,
}

/// Memory that is taken until this is dropped.
pub(crate) struct Held {
    share: OwnedSemaphorePermit,
    whole: OwnedSemaphorePermit,
}

impl Held {
    /// Gives back what is more than so many bytes.
    pub(super) fn keep(&mut self, bytes: u64) {
        let kept = kib(bytes) as usize;
        for permit in [&mut self.share, &mut self.whole] {
            drop(permit.split(permit.num_permits().saturating_sub(kept)));
        }
    }
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).map_or(SHARE, |kib| kib.min(SHARE))
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            whole: Arc::new(Semaphore::new(WHOLE as usize)),
            shares: Mutex::default(),
        }
    }
}

impl Memory {
    /// Waits until there is so much for the client. No attempt carries more than a client's share: files
    /// count among the bytes of a batch.
    pub(super) async fn take(&self, client: i32, bytes: u64) -> Held {
        let kib = kib(bytes);
        let take = async |from: Arc<Semaphore>| {
            let taken = from.acquire_many_owned(kib).await;
            taken.expect("memory is never closed")
        };
        Held {
            share: take(self.share(client)).await,
            whole: take(Arc::clone(&self.whole)).await,
        }
    }

    fn share(&self, client: i32) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        let share = shares.entry(client);
        Arc::clone(share.or_insert_with(|| Arc::new(Semaphore::new(SHARE as usize))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[tokio::test]
    async fn a_client_takes_no_more_than_its_share_and_all_no_more_than_there_is() {
        let memory = Memory::default();
        let mut first: Vec<Held> = Vec::new();
        for _ in 0..8 {
            first.push(memory.take(1, MIB).await);
        }
        assert!(memory.take(1, 1).now_or_never().is_none());
        let others = [2, 3, 4].map(|client| memory.take(client, 8 * MIB).now_or_never());
        assert!(others.iter().all(Option::is_some));
        assert!(memory.take(5, 1).now_or_never().is_none());
        assert!(memory.take(5, 1).now_or_never().is_none());
        first[0].keep(MIB - 1024);
        assert!(memory.take(5, 1024).now_or_never().is_some());
        assert!(memory.take(1, 1025).now_or_never().is_none());
        first.pop();
        assert!(memory.take(5, MIB).now_or_never().is_some());
        assert!(memory.take(1, MIB).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_could_never_be_had_is_a_clients_share_and_who_has_nothing_is_forgotten() {
        let memory = Memory::default();
        let held = memory.take(1, u64::MAX).await;
        assert!(memory.take(1, 1).now_or_never().is_none());
        drop(held);
        memory.take(2, 1).await;
        assert_eq!(memory.shares.lock().unwrap().len(), 1);
    }
}
