use std::io::{self, Write};

use clap::Subcommand;
use diesel_async::AsyncPgConnection;
use domain::keyring::Keyring;
use domain::sealed::PLACES;
use domain::sealed::rotation::Rotated;
use serde_json::json;

use super::Answer;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Seal anew, under the newest key of ENCRYPTION_KEYS, all that is sealed under an older one, while
    /// everything runs. To be asked when all services have the new key; the old one can go afterwards
    Rotate,
    /// Count what is sealed under which key
    Status,
}

/// Rows that are named one by one.
const NAMED: usize = 100;

/// `false` when something is still under an older key.
pub(super) async fn run(
    command: &Command,
    conn: &mut AsyncPgConnection,
    keyring: &Keyring,
    answer: Answer,
) -> anyhow::Result<bool> {
    match command {
        Command::Status => status(conn, keyring, answer).await.map(|()| true),
        Command::Rotate => {
            let mut is_done = true;
            for place in PLACES {
                let rotated = place.rotate(conn, keyring).await?;
                show(&rotated, answer)?;
                is_done &= rotated.left == 0 && rotated.failures.is_empty();
            }
            Ok(is_done)
        }
    }
}

fn show(rotated: &Rotated, answer: Answer) -> io::Result<()> {
    let (table, column) = (rotated.place.table(), rotated.place.column());
    let failed = rotated.failures.len();
    answer.line(
        &[
            &table,
            &column,
            &format_args!("{} sealed anew", rotated.count),
            &format_args!("{failed} failed"),
            &format_args!("{} left", rotated.left),
        ],
        &json!({"table": table, "column": column, "sealed_anew": rotated.count, "failed": failed,
            "left": rotated.left}),
    )?;
    let mut problems = io::stderr().lock();
    for failure in rotated.failures.iter().take(NAMED) {
        let (row, error) = (&failure.row, &failure.error);
        writeln!(problems, "recado-api: {table}.{column} of {row}: {error}")?;
    }
    if failed > NAMED {
        writeln!(
            problems,
            "recado-api: {table}.{column}: and {} more",
            failed - NAMED
        )?;
    }
    if rotated.left > 0 {
        let left = rotated.left;
        writeln!(
            problems,
            "recado-api: {table}.{column}: {left} were being changed: run this again"
        )?;
    }
    Ok(())
}

async fn status(
    conn: &mut AsyncPgConnection,
    keyring: &Keyring,
    answer: Answer,
) -> anyhow::Result<()> {
    for place in PLACES {
        for usage in place.usage(conn).await? {
            let key = usage.key.as_deref().unwrap_or("");
            let standing = match keyring.ids().position(|id| id == key) {
                Some(0) => "newest",
                Some(_) => "older",
                None => "not in ENCRYPTION_KEYS",
            };
            let (table, column, count) = (place.table(), place.column(), usage.count);
            answer.line(
                &[&table, &column, &key, &count, &standing],
                &json!({"table": table, "column": column, "key": key, "count": count,
                    "standing": standing}),
            )?;
        }
    }
    Ok(())
}
