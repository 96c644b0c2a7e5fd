//! How fast sockets are opened.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// So many starts a second, of which a second's worth may come at once.
#[derive(Debug)]
pub(crate) struct Pace {
    step: Duration,
    /// When the last of the starts so far would have been, had they come evenly.
    even: Instant,
}

const BURST: Duration = Duration::from_secs(1);

impl Pace {
    pub(crate) fn new(rate: NonZeroU32) -> Self {
        Self {
            step: Duration::from_secs(1) / rate.get(),
            even: Instant::now(),
        }
    }

    pub(crate) fn step(&self) -> Duration {
        self.step
    }

    /// When the next start may be.
    pub(crate) fn next(&self) -> Instant {
        let ahead = BURST.saturating_sub(self.step);
        self.even.checked_sub(ahead).unwrap_or(self.even)
    }

    /// How many starts may be now.
    pub(crate) fn available(&self, now: Instant) -> usize {
        let ahead = BURST.saturating_sub(self.step);
        let base = self.even.max(now);
        match (now + ahead).checked_duration_since(base) {
            Some(room) => (room.as_nanos() / self.step.as_nanos().max(1)) as usize + 1,
            None => 0,
        }
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next() <= now
    }

    pub(crate) fn start(&mut self, now: Instant) {
        self.even = self.even.max(now) + self.step;
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
        assert_eq!(pace.available(begin), 5);
        while starts.len() < 8 {
            assert_eq!(pace.available(now) > 0, pace.is_due(now));
            if pace.is_due(now) {
                pace.start(now);
                starts.push((now - begin).as_millis());
            } else {
                now = pace.next();
            }
        }
        assert_eq!(starts, [0, 0, 0, 0, 0, 200, 400, 600]);
    }
}
