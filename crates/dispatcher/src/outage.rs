//! What a stage does while a server is away: it says so once, waits longer from try to try, and says
//! when it is over.

use std::fmt::Display;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Outage {
    stage: &'static str,
    since: Option<Instant>,
    tries: u32,
}

impl Outage {
    /// None yet. `stage` is who would tell of it.
    pub(crate) fn new(stage: &'static str) -> Self {
        Self {
            stage,
            since: None,
            tries: 0,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.since.is_none()
    }

    /// Notes a failed try; answers how long to wait before the next one.
    pub(crate) fn failed(&mut self, error: impl Display) -> Duration {
        metrics::counter!("recado_dispatcher_errors_total", "stage" => self.stage).increment(1);
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!(stage = self.stage, "{error}; trying again until it works");
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.tries.min(10));
        self.tries += 1;
        pause.min(LONGEST_PAUSE)
    }

    /// Notes a try that worked.
    pub(crate) fn over(&mut self) {
        self.tries = 0;
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs_f64();
            tracing::info!(stage = self.stage, seconds, "works again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_two_seconds_and_begin_anew_after_a_success() {
        let mut outage = Outage::new("test");
        let pauses: Vec<_> = (0..8).map(|_| outage.failed("away").as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert!(!outage.is_over());
        outage.over();
        assert!(outage.is_over());
        assert_eq!(outage.failed("away again"), FIRST_PAUSE);
    }
}
