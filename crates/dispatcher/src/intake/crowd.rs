use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A sighting holds for so long.
const LASTS: Duration = Duration::from_millis(200);

/// Whether the doorbell tells of more than one claim takes.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    seen: Mutex<Option<Instant>>,
}

impl Crowd {
    /// There was more than one claim took.
    pub(crate) fn seen(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn is_there(&self) -> bool {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.is_some_and(|at| at.elapsed() < LASTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_there_for_a_while_after_it_was_seen() {
        let crowd = Crowd::default();
        assert!(!crowd.is_there());
        crowd.seen();
        assert!(crowd.is_there());
        *crowd.seen.lock().unwrap() = Instant::now().checked_sub(LASTS);
        assert!(!crowd.is_there());
    }
}
