//! What one dispatcher does for all, on a connection of its own: upkeep of the tables that grow, with
//! partitions made ahead and dropped after the retention, the end of what clients could not send, of the files that
//! they put here and of what they were answered, and the question whether the promise holds.

use std::time::{Duration, Instant};

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use domain::outbox::Outgoing;
use domain::partition::{self, Maintained};
use domain::upload::Upload;
use domain::{idempotency, verify};
use metrics::gauge;
use runtime::config::DatabaseConfig;
use runtime::postgres;
use runtime::shutdown::Shutdown;
use tokio::time::sleep;

/// Between two runs of the upkeep.
const UPKEEP: Duration = Duration::from_secs(3600);
/// Between two questions whether the promise holds.
const QUESTION: Duration = Duration::from_secs(300);
/// Who isn't the one looks so often whether it has to be.
const STAND_BY: Duration = Duration::from_secs(60);
/// For so long a request to send that is repeated under its key is answered with what became of the first.
const KEPT_DAYS: i32 = 7;
/// The question must not become a burden.
const PATIENCE: &str = "SET statement_timeout = '60s'";

pub(crate) struct Maintenance {
    pub(crate) database: DatabaseConfig,
    /// `None` keeps everything.
    pub(crate) retention_days: Option<u32>,
    pub(crate) shutdown: Shutdown,
}

impl Maintenance {
    /// Until the soft stop. The end of the connection lets another dispatcher take over.
    pub(crate) async fn run(self) {
        let soft = self.shutdown.soft().clone();
        loop {
            // A run that is cut off leaves a transaction undone, and nothing else.
            let Some(result) = soft.run_until_cancelled(self.serve()).await else {
                return;
            };
            // What this one has found is no longer this one's to tell, or could not be found out.
            let unknown = match result {
                Ok(()) => 0.0,
                Err(error) => {
                    tracing::warn!("upkeep of the tables: {error:#}");
                    f64::NAN
                }
            };
            for rule in verify::Rule::ALL {
                violations(rule).set(unknown);
            }
            if soft.run_until_cancelled(sleep(STAND_BY)).await.is_none() {
                return;
            }
        }
    }

    /// Serves for as long as the connection lasts; ends at once when another does.
    async fn serve(&self) -> anyhow::Result<()> {
        let mut conn = postgres::connect(&self.database).await?;
        let mut upkeep: Option<Instant> = None;
        // Asked again, it is still ours: only the end of the connection ends it.
        while let Some(now) = partition::begin(&mut conn).await? {
            if upkeep.is_none_or(|last| last.elapsed() >= UPKEEP) {
                tell(&partition::maintain(&mut conn, now, self.retention_days).await?);
                tidy(&mut conn).await?;
                upkeep = Some(Instant::now());
            }
            ask(&mut conn).await?;
            sleep(QUESTION).await;
        }
        Ok(())
    }
}

/// What clients sent, or meant to, is no row of a day's partition.
async fn tidy(conn: &mut AsyncPgConnection) -> anyhow::Result<()> {
    Outgoing::tidy(conn, KEPT_DAYS).await?;
    let deleted = Upload::tidy(conn).await?;
    if deleted > 0 {
        tracing::info!(deleted, "uploads whose day is over");
    }
    let forgotten = idempotency::tidy(conn).await?;
    if forgotten > 0 {
        tracing::info!(forgotten, "answers whose day is over");
    }
    Ok(())
}

async fn ask(conn: &mut AsyncPgConnection) -> anyhow::Result<()> {
    conn.batch_execute(PATIENCE).await?;
    let findings = verify::violations(conn).await?;
    conn.batch_execute("RESET statement_timeout").await?;
    for finding in findings {
        violations(finding.rule).set(finding.violations as f64);
        if finding.is_broken() {
            let (rule, ids) = (finding.rule.text(), &finding.ids);
            tracing::error!(violations = finding.violations, ?ids, "not so: {rule}");
        }
    }
    Ok(())
}

fn violations(rule: verify::Rule) -> metrics::Gauge {
    gauge!("recado_violations", "rule" => rule.as_str())
}

fn tell(done: &Maintained) {
    if !done.made.is_empty() || !done.dropped.is_empty() {
        tracing::info!(made = ?done.made, dropped = ?done.dropped, "upkeep of the tables");
    }
    if !done.kept.is_empty() {
        tracing::warn!(kept = ?done.kept, "past their retention, but they hold pending events");
    }
    if done.buried > 0 {
        let buried = done.buried;
        tracing::warn!(
            buried,
            "events became dead letters: their retention was over"
        );
    }
}
