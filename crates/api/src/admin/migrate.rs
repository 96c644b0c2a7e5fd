use chrono::Utc;
use domain::{migration, partition};
use runtime::config::DatabaseConfig;

use super::{connect, say};

/// Several at once are fine: they take turns. Partitions that cannot be made at this moment are left to the
/// dispatcher, which looks after them all the time.
pub(super) async fn run(config: &DatabaseConfig) -> anyhow::Result<()> {
    let versions = migration::run(connect(config).await?).await?;
    for version in &versions {
        say(&[&"migrated", version])?;
    }
    match partition::maintain(&mut connect(config).await?, Utc::now(), None).await {
        Ok(maintained) => {
            for partition in &maintained.made {
                say(&[&"partition", partition])?;
            }
            if versions.is_empty() && maintained.made.is_empty() {
                say(&[&"up to date"])?;
            }
        }
        Err(error) => tracing::warn!(%error, "the partitions are left to the dispatcher's upkeep"),
    }
    Ok(())
}
