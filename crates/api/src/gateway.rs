//! Asking the gateways for something: it stands in the connection's row, a ring says so, and the same
//! row shows when it is done. The two processes never speak to each other.

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use domain::connection::Connection;

use crate::error::ApiError;
use crate::state::State;
use crate::wait;

/// Rings, then looks at the row until it is as it should be or the wait is over. Returns the last look
/// and whether it satisfied. No database connection is held between two looks.
pub(crate) async fn ask(
    state: &State,
    look: impl AsyncFn(&mut AsyncPgConnection) -> QueryResult<Option<Connection>>,
    satisfies: impl Fn(Option<&Connection>) -> bool,
) -> Result<(Option<Connection>, bool), ApiError> {
    state.ring_gateways().await;
    let mut last = None;
    let satisfied = wait::until(state.gateway_wait, async || {
        let mut conn = state.connection().await?;
        last = look(&mut conn).await?;
        Ok(satisfies(last.as_ref()).then_some(()))
    });
    let satisfied = satisfied.await?.is_some();
    Ok((last, satisfied))
}
