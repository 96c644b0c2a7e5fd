use chrono::Utc;
use clap::Args;
use diesel_async::AsyncPgConnection;
use domain::partition;
use serde_json::json;

use super::Answer;

#[derive(Debug, Args)]
pub struct Retention {
    /// Keep what is not older; RETENTION_DAYS by default
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    days: Option<u32>,
}

/// What the dispatchers do every hour with the tables that grow. `retention_days`: theirs; `None` keeps everything.
pub(super) async fn run(
    command: &Retention,
    conn: &mut AsyncPgConnection,
    retention_days: Option<u32>,
    answer: Answer,
) -> anyhow::Result<()> {
    let days = command.days.or(retention_days);
    let done = partition::maintain(conn, Utc::now(), days).await?;
    for (what, partitions) in [
        ("made", &done.made),
        ("dropped", &done.dropped),
        ("kept", &done.kept),
    ] {
        for partition in partitions {
            answer.line(&[&what, partition], &json!({what: partition}))?;
        }
    }
    let (buried, deleted) = (done.buried, done.deleted);
    answer.line(
        &[
            &format_args!("{buried} undelivered events became dead letters"),
            &format_args!("{deleted} rows without a partition deleted"),
        ],
        &json!({"buried": buried, "deleted": deleted}),
    )?;
    Ok(())
}
