//! Upkeep of the tables that grow: partitions made ahead, and dropped after the retention. One
//! dispatcher does it for all, on a connection of its own.

use std::time::Duration;

use domain::partition::{self, Maintained};
use runtime::config::DatabaseConfig;
use runtime::postgres;
use runtime::shutdown::Shutdown;
use tokio::time::sleep;

const EVERY: Duration = Duration::from_secs(3600);
const AFTER_FAILURE: Duration = Duration::from_secs(60);

pub(crate) struct Maintenance {
    pub(crate) database: DatabaseConfig,
    /// `None` keeps everything.
    pub(crate) retention_days: Option<u32>,
    pub(crate) shutdown: Shutdown,
}

impl Maintenance {
    /// At the start and every hour, until the soft stop.
    pub(crate) async fn run(self) {
        let soft = self.shutdown.soft().clone();
        loop {
            // A run that is cut off leaves a transaction undone, and nothing else.
            let Some(result) = soft.run_until_cancelled(self.once()).await else {
                return;
            };
            let pause = match result {
                Ok(done) => {
                    tell(&done);
                    EVERY
                }
                Err(error) => {
                    tracing::warn!("upkeep of the tables: {error:#}");
                    AFTER_FAILURE
                }
            };
            if soft.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Nothing when another dispatcher is at it. The end of the connection lets the next one in.
    async fn once(&self) -> anyhow::Result<Maintained> {
        let mut conn = postgres::connect(&self.database).await?;
        match partition::begin(&mut conn).await? {
            Some(now) => Ok(partition::maintain(&mut conn, now, self.retention_days).await?),
            None => Ok(Maintained::default()),
        }
    }
}

fn tell(done: &Maintained) {
    if !done.made.is_empty() || !done.dropped.is_empty() {
        tracing::info!(made = ?done.made, dropped = ?done.dropped, "upkeep of the tables");
    }
    if !done.kept.is_empty() {
        tracing::warn!(kept = ?done.kept, "past their retention, but they hold pending events");
    }
}
