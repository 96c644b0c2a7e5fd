use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};
use diesel::sql_types::{Bool, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{FileBasedMigrations, MigrationHarness};
use runtime::postgres;
use sha2::{Digest, Sha256};

use super::{config, elsewhere};
use crate::shared::{sibling, workspace};

/// Held while a template is built. Any number will do, as long as nobody else uses it.
const LOCK: i64 = 0x7265_6361_646f_7470;

/// The name of a template database with today's migrations; the first caller of all builds it.
pub(super) async fn ensure(admin_url: &str) -> String {
    let admin_url = admin_url.to_owned();
    // diesel's migrations block the thread they run on.
    let built =
        tokio::task::spawn_blocking(move || elsewhere(async move { build(&admin_url).await }));
    let built = built.await.expect("building returns its errors");
    built.unwrap_or_else(|error| panic!("the template database: {error:#}"))
}

async fn build(admin_url: &str) -> anyhow::Result<String> {
    let migrations = workspace().join("migrations");
    let name = format!("recado_template_{}", fingerprint(&migrations)?);
    let mut admin = postgres::connect(&config(admin_url)).await?;
    if exists(&mut admin, &name).await? {
        return Ok(name);
    }
    admin
        .batch_execute(&format!("SELECT pg_advisory_lock({LOCK})"))
        .await?;
    if !exists(&mut admin, &name).await? {
        // Under another name until it is whole: a template that exists is complete.
        let unfinished = format!("{name}_unfinished");
        admin
            .batch_execute(&format!(
                "DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)"
            ))
            .await?;
        admin
            .batch_execute(&format!("CREATE DATABASE {unfinished} TEMPLATE template0"))
            .await?;
        migrate(&sibling(admin_url, &unfinished), &migrations).await?;
        admin
            .batch_execute(&format!("ALTER DATABASE {unfinished} RENAME TO {name}"))
            .await?;
    }
    // The lock goes with the connection.
    Ok(name)
}

async fn migrate(url: &str, migrations: &Path) -> anyhow::Result<()> {
    let files = FileBasedMigrations::from_path(migrations).map_err(|error| anyhow!("{error}"))?;
    let connection = postgres::connect(&config(url)).await?;
    let mut harness = AsyncMigrationHarness::new(connection);
    let done = harness.run_pending_migrations(files);
    done.map(drop).map_err(|error| anyhow!("{error}"))
}

async fn exists(admin: &mut AsyncPgConnection, name: &str) -> anyhow::Result<bool> {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = Bool)]
        found: bool,
    }
    let query = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1) AS found";
    let row: Found = sql_query(query)
        .bind::<Text, _>(name)
        .get_result(admin)
        .await?;
    Ok(row.found)
}

/// A hash over the names and the content of all migrations.
fn fingerprint(migrations: &Path) -> anyhow::Result<String> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(migrations).with_context(|| migrations.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    let mut hash = Sha256::new();
    for folder in folders {
        for file in ["up.sql", "metadata.toml"] {
            let path = folder.join(file);
            hash.update(path.strip_prefix(migrations)?.to_string_lossy().as_bytes());
            match fs::read(&path) {
                Ok(content) => hash.update(&content),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
    }
    Ok(hex::encode(&hash.finalize()[..8]))
}
