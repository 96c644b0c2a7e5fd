//! How soon a session is started again.

use std::time::Duration;

use tokio::time::Instant;

use crate::session::Goal;

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
