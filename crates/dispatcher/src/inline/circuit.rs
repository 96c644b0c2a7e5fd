//! While the media host is away nobody waits for it: one file at a time finds out whether it is back.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::FETCH;
use crate::outage::Outage;

/// Failures in a row until the host is taken to be away.
const FAILURES: u32 = 3;

pub(super) struct Circuit(Mutex<State>);

struct State {
    failures: u32,
    outage: Outage,
    /// When the next file is let through.
    next: Option<Instant>,
}

impl Default for Circuit {
    fn default() -> Self {
        Self(Mutex::new(State {
            failures: 0,
            outage: Outage::new("media"),
            next: None,
        }))
    }
}

impl Circuit {
    /// Whether the host is to be asked now. It is [`Circuit::failed`] or [`Circuit::answered`] that is to be
    /// told afterwards; if neither is, the next file is let through when this one must have ended.
    pub(super) fn lets_through(&self, now: Instant) -> bool {
        let mut state = self.state();
        match state.next {
            None => true,
            Some(next) if now < next => false,
            Some(_) => {
                state.next = Some(now + FETCH);
                true
            }
        }
    }

    pub(super) fn failed(&self, error: impl Display, now: Instant) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            let pause = state.outage.failed(error);
            state.next = Some(now + pause);
        }
    }

    pub(super) fn answered(&self) {
        let mut state = self.state();
        state.failures = 0;
        state.next = None;
        state.outage.over();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(2);

    #[test]
    fn after_failures_in_a_row_one_file_at_a_time_is_let_through_until_one_is_answered() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        for _ in 1..FAILURES {
            circuit.failed("silence", now);
        }
        assert!(circuit.lets_through(now));
        circuit.answered();
        for _ in 0..FAILURES {
            assert!(circuit.lets_through(now));
            circuit.failed("silence", now);
        }
        assert!(!circuit.lets_through(now));
        assert!(circuit.lets_through(now + PAUSE));
        assert!(!circuit.lets_through(now + PAUSE), "one is under way");
        assert!(circuit.lets_through(now + PAUSE + FETCH), "it must be over");
        circuit.answered();
        assert!(circuit.lets_through(now) && circuit.lets_through(now));
    }
}
