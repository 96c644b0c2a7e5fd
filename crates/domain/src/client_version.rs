//! The version of WhatsApp Web that is current, found out by one gateway for all of them.

use diesel::prelude::*;
use diesel::sql_types::{Bool, Double, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::statement::Statement;

/// A version that is older than this is asked for anew, in seconds.
const FRESH: f64 = 24.0 * 3600.0;
/// Nobody asks sooner than this after somebody did, in seconds, whatever came of it.
const PAUSE: f64 = 600.0;

#[derive(QueryableByName)]
struct Known {
    #[diesel(sql_type = Nullable<Text>)]
    version: Option<String>,
}

/// The last one that was found out.
pub async fn find(conn: &mut AsyncPgConnection) -> QueryResult<Option<String>> {
    let known: Option<Known> = Statement::new("SELECT version FROM whatsapp_client_version")
        .get_result(conn)
        .await
        .optional()?;
    Ok(known.and_then(|known| known.version))
}

/// Whether the caller is the one to ask for it now: it is too old, or `doubted`, and nobody has asked of late.
pub async fn claim(conn: &mut AsyncPgConnection, doubted: bool) -> QueryResult<bool> {
    let claimed = Statement::new(
        "INSERT INTO whatsapp_client_version AS v (asked_at) VALUES (now())
         ON CONFLICT (one) DO UPDATE SET asked_at = now()
         WHERE v.asked_at < now() - make_interval(secs => ?)
             AND (? OR v.found_at IS NULL OR v.found_at < now() - make_interval(secs => ?))",
    )
    .bind::<Double, _>(PAUSE)
    .bind::<Bool, _>(doubted)
    .bind::<Double, _>(FRESH)
    .execute(conn)
    .await?;
    Ok(claimed > 0)
}

/// Keeps what was found out. Where it is news, sessions that were turned away for their version are tried
/// again at once; returns whether there are any.
pub async fn record(conn: &mut AsyncPgConnection, version: &str) -> QueryResult<bool> {
    let freed = Statement::new(
        "WITH before AS (SELECT version FROM whatsapp_client_version),
         now_known AS (UPDATE whatsapp_client_version SET version = ?, found_at = now())
         UPDATE whatsapp_connections SET retry_at = now()
         WHERE retry_at > now() AND reason = 'client_outdated'
             AND EXISTS (SELECT FROM before WHERE before.version IS DISTINCT FROM ?)",
    )
    .bind::<Text, _>(version)
    .bind::<Text, _>(version)
    .execute(conn)
    .await?;
    Ok(freed > 0)
}
