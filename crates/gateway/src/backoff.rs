//! Pauses between attempts.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Pauses from 50 ms doubled up to a second.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep((FIRST * 2_u32.pow(self.0.min(8))).min(LONGEST)).await;
        self.0 = self.0.saturating_add(1);
    }
}
