use chrono::Utc;
use domain::{migration, partition};
use runtime::config::DatabaseConfig;

use super::{connect, say};

/// Several at once are fine: they take turns.
pub(super) async fn run(config: &DatabaseConfig) -> anyhow::Result<()> {
    let versions = migration::run(connect(config).await?).await?;
    for version in &versions {
        say(&[&"migrated", version])?;
    }
    let maintained = partition::maintain(&mut connect(config).await?, Utc::now(), None).await?;
    for partition in &maintained.made {
        say(&[&"partition", partition])?;
    }
    if versions.is_empty() && maintained.made.is_empty() {
        say(&[&"up to date"])?;
    }
    Ok(())
}
