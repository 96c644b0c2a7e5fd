//! What is known of one session's sockets from below its client, which tells of an end and not of all of them:
//! when the next was tried, when it was opened, when the client last understood what came on it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Pulse(Mutex<State>);

#[derive(Debug, Clone, Copy)]
struct State {
    /// Since when sockets are tried of which none has led anywhere yet.
    tried: Option<Instant>,
    opened: Instant,
    heard: Instant,
}

impl Default for Pulse {
    fn default() -> Self {
        let now = Instant::now();
        Self(Mutex::new(State {
            tried: None,
            opened: now,
            heard: now,
        }))
    }
}

impl Pulse {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket is about to be opened.
    pub(crate) fn tries(&self, now: Instant) {
        self.state().tried.get_or_insert(now);
    }

    pub(crate) fn opens(&self, now: Instant) {
        let mut state = self.state();
        (state.opened, state.heard) = (now, now);
    }

    /// A stanza was read. Frames that can't be read are no sign of life: once the keys of a socket don't match
    /// none ever will be, and the library takes them for one.
    pub(crate) fn hears(&self, now: Instant) {
        self.state().heard = now;
    }

    /// WhatsApp lets the session in, or shows it a code.
    pub(crate) fn arrives(&self) {
        self.state().tried = None;
    }

    /// How long it has been tried in vain.
    pub(crate) fn in_vain(&self, now: Instant) -> Duration {
        let tried = self.state().tried;
        tried.map_or(Duration::ZERO, |since| now - since)
    }

    /// How long the newest socket has been there, and how long nothing has been heard on it.
    pub(crate) fn socket(&self, now: Instant) -> (Duration, Duration) {
        let state = *self.state();
        (now - state.opened, now - state.heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn tries_are_in_vain_from_the_first_one_until_one_arrives() {
        let (pulse, begin) = (Pulse::default(), Instant::now());
        assert_eq!(pulse.in_vain(begin), Duration::ZERO);
        pulse.tries(begin);
        pulse.tries(begin + SECOND);
        assert_eq!(pulse.in_vain(begin + 2 * SECOND), 2 * SECOND);
        pulse.arrives();
        assert_eq!(pulse.in_vain(begin + 3 * SECOND), Duration::ZERO);
    }

    #[test]
    fn a_new_socket_is_not_silent_yet() {
        let (pulse, begin) = (Pulse::default(), Instant::now());
        pulse.opens(begin + 9 * SECOND);
        pulse.hears(begin + 11 * SECOND);
        assert_eq!(pulse.socket(begin + 12 * SECOND), (3 * SECOND, SECOND));
    }
}
