//! Asking the gateways for something: it stands in the connection's row, a ring says so, and the same
//! row shows when it is done. The two processes never speak to each other.

use std::time::Duration;

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use domain::connection::Connection;
use tokio::time::{Instant, sleep};

use crate::error::ApiError;
use crate::state::State;

/// Between two looks at the row: at first, and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Rings, then looks at the row until it is as it should be or the wait is over. Returns the last look
/// and whether it satisfied. No database connection is held between two looks.
pub(crate) async fn ask(
    state: &State,
    look: impl AsyncFn(&mut AsyncPgConnection) -> QueryResult<Option<Connection>>,
    satisfies: impl Fn(Option<&Connection>) -> bool,
) -> Result<(Option<Connection>, bool), ApiError> {
    state.ring_gateways().await;
    let deadline = Instant::now() + state.gateway_wait;
    let mut pause = FIRST_PAUSE;
    loop {
        let seen = {
            let mut conn = state.connection().await?;
            look(&mut conn).await?
        };
        if satisfies(seen.as_ref()) {
            return Ok((seen, true));
        }
        if Instant::now() + pause > deadline {
            return Ok((seen, false));
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}
