//! A stage's own connection to PostgreSQL: kept from one statement to the next, made anew after an
//! error. Only statements run on it; it is free while a delivery is under way.

use std::time::Duration;

use diesel::ConnectionError;
use diesel::result::{Error, QueryResult};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use domain::failure::{Failure, classify};
use runtime::config::DatabaseConfig;
use runtime::postgres;
use thiserror::Error as ThisError;
use tokio::time::timeout;

/// A statement that takes longer is given up, and its connection with it: a server that has stopped
/// must not stop us.
const STATEMENT: Duration = Duration::from_secs(15);
/// The promise does not depend on how the server is set up.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'";
/// Commits don't wait for the disk.
const LAZY: &str = "SET synchronous_commit = off";

pub(crate) struct Link {
    config: DatabaseConfig,
    commits: &'static str,
    connection: Option<AsyncPgConnection>,
}

#[derive(Debug, ThisError)]
pub(crate) enum LinkError {
    #[error("PostgreSQL: {0}")]
    Connect(#[from] ConnectionError),
    #[error("PostgreSQL: {0}")]
    Query(#[from] Error),
    #[error("PostgreSQL did not answer within {} s", STATEMENT.as_secs())]
    TimedOut,
}

impl LinkError {
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Query(error) => classify(error),
            Self::Connect(_) | Self::TimedOut => Failure::Transient,
        }
    }
}

impl Link {
    /// A link that connects when it is first used.
    pub(crate) fn new(config: DatabaseConfig) -> Self {
        Self {
            config,
            commits: DURABLE,
            connection: None,
        }
    }

    /// A link whose last commits PostgreSQL may forget when it crashes: for what is then done again. A later
    /// commit on another link makes them last.
    pub(crate) fn lazy(config: DatabaseConfig) -> Self {
        Self {
            commits: LAZY,
            ..Self::new(config)
        }
    }

    /// Runs a statement or a transaction. What came of it is not known after an error.
    pub(crate) async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut AsyncPgConnection) -> QueryResult<T>,
    ) -> Result<T, LinkError> {
        // Put back only after a whole answer, so that neither an error nor a caller that stops
        // waiting leaves half a transaction behind.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let result = timeout(STATEMENT, work(&mut connection)).await;
        let value = result.map_err(|_| LinkError::TimedOut)??;
        self.connection = Some(connection);
        Ok(value)
    }

    async fn connect(&self) -> Result<AsyncPgConnection, LinkError> {
        let mut connection = postgres::connect(&self.config).await?;
        let set = timeout(STATEMENT, connection.batch_execute(self.commits)).await;
        set.map_err(|_| LinkError::TimedOut)??;
        Ok(connection)
    }
}
