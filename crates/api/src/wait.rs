//! Waiting for something that another process writes into PostgreSQL.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::ApiError;

/// Between two looks: at first, and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Looks until there is something to see, for `limit` at the longest. A look is to hold no database
/// connection when it is over.
pub(crate) async fn until<T>(
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>, ApiError>,
) -> Result<Option<T>, ApiError> {
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(seen) = look().await? {
            return Ok(Some(seen));
        }
        if Instant::now() + pause > deadline {
            return Ok(None);
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}
