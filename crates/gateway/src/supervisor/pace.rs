//! How fast sessions are started, and how soon again.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use crate::session::Goal;

/// So many starts a second, of which a second's worth may come at once.
#[derive(Debug)]
pub(super) struct Pace {
    step: Duration,
    /// When the last of the starts so far would have been, had they come evenly.
    even: Instant,
}

const BURST: Duration = Duration::from_secs(1);

impl Pace {
    pub(super) fn new(rate: NonZeroU32) -> Self {
        Self {
            step: Duration::from_secs(1) / rate.get(),
            even: Instant::now(),
        }
    }

    /// When the next start may be.
    pub(super) fn next(&self) -> Instant {
        let ahead = BURST.saturating_sub(self.step);
        self.even.checked_sub(ahead).unwrap_or(self.even)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next() <= now
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.even = self.even.max(now) + self.step;
    }
}

/// When a session that failed is started again: after a second, doubled up to five minutes. One that
/// lasted begins anew. One of which something else is wanted is started at once.
#[derive(Debug)]
pub(super) struct Retry {
    failures: u32,
    due: Instant,
    goal: Goal,
}

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
const LASTED: Duration = Duration::from_secs(60);

impl Default for Retry {
    fn default() -> Self {
        Self {
            failures: 0,
            due: Instant::now(),
            goal: Goal::Connected,
        }
    }
}

impl Retry {
    pub(super) fn is_due(&self, now: Instant, goal: Goal) -> bool {
        self.due <= now || self.goal != goal
    }

    /// Returns the pause.
    pub(super) fn failed(&mut self, lasted: Duration, goal: Goal) -> Duration {
        self.goal = goal;
        if lasted >= LASTED {
            self.failures = 0;
        }
        let pause = (FIRST * 2_u32.pow(self.failures.min(16))).min(LONGEST);
        self.failures += 1;
        self.due = Instant::now() + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_of_sessions_starts_at_once_and_the_others_evenly() {
        let mut pace = Pace::new(NonZeroU32::new(5).unwrap());
        let begin = Instant::now();
        let mut now = begin;
        let mut starts = Vec::new();
        while starts.len() < 8 {
            if pace.is_due(now) {
                pace.start(now);
                starts.push((now - begin).as_millis());
            } else {
                now = pace.next();
            }
        }
        assert_eq!(starts, [0, 0, 0, 0, 0, 200, 400, 600]);
    }

    #[test]
    fn pauses_grow_and_begin_anew_after_a_session_that_lasted() {
        let mut retry = Retry::default();
        let connected = Goal::Connected;
        let mut failed = |lasted| {
            retry
                .failed(Duration::from_secs(lasted), connected)
                .as_secs()
        };
        assert_eq!([failed(0), failed(0), failed(3)], [1, 2, 4]);
        assert_eq!((0..9).map(|_| failed(0)).last(), Some(300));
        assert_eq!(failed(60), 1);
        let now = Instant::now();
        assert!(!retry.is_due(now, Goal::Connected));
        assert!(
            retry.is_due(now, Goal::LoggedOut),
            "it is not waited for in vain"
        );
    }
}
