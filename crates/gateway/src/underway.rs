//! One session's messages between the socket and the durability hook.
//!
//! A client that is ended makes its ratchets durable, also those that a message has moved which it has decrypted
//! and not stored yet; the rest of that message's way is then cut off. Its copy finds that the ratchet has passed
//! it, and no body. So no client is ended, and none is told that its socket is gone, before what it has read has
//! come to the hook.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// What has not come to the hook by then hardly will: longer than the client gathers messages of an offline queue
/// before it hands them on (3 s). Some never do, such as a group's key alone.
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub struct Underway {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By id.
    read: HashMap<String, Instant>,
    looked: Option<Instant>,
}

impl Underway {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a new socket.
    pub(crate) fn opens(&self) {
        *self.state() = State::default();
    }

    pub(crate) fn reads(&self, message_id: &str, now: Instant) {
        let mut state = self.state();
        if state.looked.is_none_or(|looked| now - looked > LONGEST) {
            state.read.retain(|_, read| now - *read < LONGEST);
            state.looked = Some(now);
        }
        state.read.insert(message_id.to_owned(), now);
    }

    /// The message is at the hook, or will never be.
    pub(crate) fn arrives(&self, message_id: &str) {
        if self.state().read.remove(message_id).is_some() {
            self.arrived.notify_waiters();
        }
    }

    /// Waits until what was read has arrived.
    pub(crate) async fn quiet(&self) {
        let mut arrived = std::pin::pin!(self.arrived.notified());
        loop {
            // From here on an arrival is noticed.
            arrived.as_mut().enable();
            let newest = self.state().read.values().max().copied();
            let last = newest.map(|read| read + LONGEST);
            let Some(last) = last.filter(|last| *last > Instant::now()) else {
                return;
            };
            tokio::select! {
                () = arrived.as_mut() => arrived.set(self.arrived.notified()),
                () = tokio::time::sleep_until(last) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn it_is_quiet_once_all_that_was_read_has_arrived() {
        let underway = Underway::default();
        underway.quiet().now_or_never().unwrap();
        underway.reads("one", Instant::now());
        underway.reads("two", Instant::now());
        let mut quiet = std::pin::pin!(underway.quiet());
        assert!(quiet.as_mut().now_or_never().is_none());
        underway.arrives("two");
        assert!(quiet.as_mut().now_or_never().is_none());
        underway.arrives("one");
        quiet.now_or_never().unwrap();
    }

    #[tokio::test]
    async fn what_never_arrives_is_not_waited_for_for_ever() {
        let underway = Underway::default();
        let now = Instant::now();
        underway.reads("key", now - LONGEST + Duration::from_millis(50));
        underway.quiet().await;
        assert!(now.elapsed() >= Duration::from_millis(50));
        underway.reads("later", Instant::now() + 2 * LONGEST);
        assert!(!underway.state().read.contains_key("key"));
    }
}
