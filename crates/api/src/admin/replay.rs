use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::Args;
use diesel_async::AsyncPgConnection;
use domain::replay::{Events, PAUSE, Settled, Step};
use domain::span::Span;
use domain::webhook::Webhook;
use serde_json::json;
use tokio::time::sleep;
use uuid::Uuid;

use super::Answer;

#[derive(Debug, Args)]
pub struct Replay {
    webhook_id: Uuid,
    /// Which of its settled events: failed, delivered or all
    #[arg(long, default_value = "failed")]
    status: Settled,
    /// Committed at that time or later, as 2026-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<DateTime<Utc>>,
    /// Committed before that time
    #[arg(long, value_name = "TIME")]
    until: Option<DateTime<Utc>>,
}

/// Requeues them step by step; the dispatchers begin with the first while the last are still to come.
pub(super) async fn run(
    command: &Replay,
    conn: &mut AsyncPgConnection,
    answer: Answer,
) -> anyhow::Result<()> {
    let &Replay {
        webhook_id,
        status,
        since,
        until,
    } = command;
    let span = Span::new(since, until).context("--until must be later than --since")?;
    let client = Webhook::client_of(conn, webhook_id).await?;
    let client = client.with_context(|| format!("there is no webhook {webhook_id}"))?;
    let mut events = Events::begin(conn, client, webhook_id, status, span).await?;
    let mut total = 0;
    loop {
        match events.step(conn).await? {
            Step::Done(count) => total += count,
            Step::Held(count) => {
                total += count;
                sleep(PAUSE).await;
            }
            Step::End => break,
            Step::NoReceiver => {
                anyhow::bail!("{webhook_id} takes no deliveries any more; {total} were requeued")
            }
        }
    }
    answer.line(&[&"requeued", &total], &json!({"requeued": total}))?;
    Ok(())
}
