//! The schema's own versions: running them, and checking that they ran.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use thiserror::Error;

use crate::statement::Statement;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations");

/// The advisory lock that lets one migrator in at a time ("recado" in ASCII).
const LOCK: i64 = 0x7265_6361_646f;

/// The database is not what this build was made for.
#[derive(Debug, Error)]
pub enum SchemaError {
    #[error("the database has no schema yet: run `recado-api migrate`")]
    Missing,
    #[error(
        "the database schema is older than this build (it lacks {0}): run `recado-api migrate`"
    )]
    Old(String),
    #[error(transparent)]
    Query(#[from] diesel::result::Error),
}

#[derive(Debug, Error)]
#[error("{0}")]
pub struct MigrationError(String);

/// Runs what has not run yet, oldest first, and returns the versions that it ran. Others that migrate at
/// the same time wait: diesel takes no lock of its own.
///
/// Takes a connection of its own, whose end releases the lock, on a multi-threaded runtime.
pub async fn run(mut conn: AsyncPgConnection) -> Result<Vec<String>, MigrationError> {
    let failed = |error: &dyn std::fmt::Display| MigrationError(error.to_string());
    Statement::new("SELECT pg_advisory_lock(?)")
        .bind::<BigInt, _>(LOCK)
        .execute(&mut conn)
        .await
        .map_err(|error| failed(&error))?;
    tokio::task::spawn_blocking(move || {
        let mut harness = AsyncMigrationHarness::new(conn);
        harness
            .run_pending_migrations(MIGRATIONS)
            .map(|versions| versions.iter().map(ToString::to_string).collect())
            .map_err(|error| MigrationError(error.to_string()))
    })
    .await
    .map_err(|error| failed(&error))?
}

/// Whether the newest migration of this build has run. A schema that is newer than the build is fine.
pub async fn check(conn: &mut AsyncPgConnection) -> Result<(), SchemaError> {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = Bool)]
        found: bool,
    }
    let table: Found =
        Statement::new("SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS found")
            .get_result(conn)
            .await?;
    if !table.found {
        return Err(SchemaError::Missing);
    }
    let newest = newest();
    let version: Found = Statement::new(
        "SELECT EXISTS (SELECT FROM __diesel_schema_migrations WHERE version = ?) AS found",
    )
    .bind::<Text, _>(&newest)
    .get_result(conn)
    .await?;
    match version.found {
        true => Ok(()),
        false => Err(SchemaError::Old(newest)),
    }
}

/// The version of this build's last migration.
fn newest() -> String {
    diesel::migration::MigrationSource::<diesel::pg::Pg>::migrations(&MIGRATIONS)
        .expect("embedded migrations were read when this was compiled")
        .iter()
        .map(|migration| migration.name().version().to_string())
        .max()
        .expect("there is at least one migration")
}
