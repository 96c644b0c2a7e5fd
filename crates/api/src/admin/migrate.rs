use chrono::Utc;
use domain::{migration, partition};
use runtime::config::DatabaseConfig;
use serde_json::json;

use super::{Answer, connect};

/// Several at once are fine: they take turns. Partitions that cannot be made at this moment are left to the
/// dispatcher, which looks after them all the time.
pub(super) async fn run(config: &DatabaseConfig, answer: Answer) -> anyhow::Result<()> {
    let versions = migration::run(connect(config).await?).await?;
    for version in &versions {
        answer.line(&[&"migrated", version], &json!({"migrated": version}))?;
    }
    match partition::maintain(&mut connect(config).await?, Utc::now(), None).await {
        Ok(maintained) => {
            for partition in &maintained.made {
                answer.line(&[&"partition", partition], &json!({"partition": partition}))?;
            }
            if versions.is_empty() && maintained.made.is_empty() {
                answer.line(&[&"up to date"], &json!({"up_to_date": true}))?;
            }
        }
        Err(error) => tracing::warn!(%error, "the partitions are left to the dispatcher's upkeep"),
    }
    Ok(())
}
