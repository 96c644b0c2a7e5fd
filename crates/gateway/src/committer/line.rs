//! The connection on which everything is committed.

use std::time::Duration;

use diesel::result::QueryResult;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use runtime::config::DatabaseConfig;
use tokio::time::timeout;

use crate::backoff::Backoff;

/// What a question about the connection may take.
const ANSWER: Duration = Duration::from_secs(5);

/// The promise does not depend on how the server is set up.
const SESSION: &str = "SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'";

/// Connects, as often as it takes.
pub(super) async fn connect(database: &DatabaseConfig) -> AsyncPgConnection {
    let mut backoff = Backoff::default();
    loop {
        match connect_once(database).await {
            Ok(conn) => return conn,
            Err(error) => tracing::debug!(error, "no connection to commit on"),
        }
        backoff.pause().await;
    }
}

async fn connect_once(database: &DatabaseConfig) -> Result<AsyncPgConnection, String> {
    let mut conn = runtime::postgres::connect(database)
        .await
        .map_err(|error| error.to_string())?;
    answer(conn.batch_execute(SESSION)).await?;
    Ok(conn)
}

/// Whether the connection is still there.
pub(super) async fn check(conn: &mut AsyncPgConnection) -> Result<(), String> {
    answer(conn.batch_execute("SELECT 1")).await
}

async fn answer<T>(question: impl Future<Output = QueryResult<T>>) -> Result<T, String> {
    match timeout(ANSWER, question).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}
