use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What arrived since the last reset. It is only noted here, and made sense of when somebody asks.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Each request that was answered: which event, and when, in microseconds since 1970.
    answered: Vec<(Uuid, u64)>,
    hung: usize,
}

/// What arrived, in short. Times are microseconds since 1970, of what was answered.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) answered: usize,
    /// Events among them.
    pub(crate) distinct: usize,
    /// Requests that were not, and will not be, answered.
    pub(crate) hung: usize,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Arrivals {
    pub(super) fn answered(&mut self, id: Uuid) {
        self.answered.push((id, now()));
    }

    pub(super) fn hung(&mut self) {
        self.hung += 1;
    }

    pub(super) fn count(&self) -> usize {
        self.answered.len()
    }

    pub(super) fn times(&self) -> &[(Uuid, u64)] {
        &self.answered
    }

    pub(super) fn summary(&self) -> Summary {
        let mut ids: Vec<_> = self.answered.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        let time = |arrival: Option<&(Uuid, u64)>| arrival.map_or(0, |(_, time)| *time);
        Summary {
            answered: self.answered.len(),
            distinct: ids.len(),
            hung: self.hung,
            first: time(self.answered.first()),
            last: time(self.answered.last()),
        }
    }
}

impl Summary {
    /// Arrivals a second, from the first to the last.
    pub(crate) fn rate(&self) -> f64 {
        let seconds = self.last.saturating_sub(self.first) as f64 / 1e6;
        self.answered.saturating_sub(1) as f64 / seconds
    }
}

/// Microseconds since 1970, by the clock that all processes here share.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_events_from_arrivals() {
        let mut arrivals = Arrivals::default();
        for id in [1, 2, 1] {
            arrivals.answered(Uuid::from_u128(id));
        }
        arrivals.hung();
        let summary = arrivals.summary();
        assert_eq!(
            (summary.answered, summary.distinct, summary.hung),
            (3, 2, 1)
        );
        assert!(summary.first > 0 && summary.first <= summary.last);
    }

    #[test]
    fn a_rate_counts_the_intervals() {
        let summary = Summary {
            answered: 101,
            distinct: 101,
            hung: 0,
            first: 1_000_000,
            last: 3_000_000,
        };
        assert_eq!(summary.rate(), 50.0);
    }
}
