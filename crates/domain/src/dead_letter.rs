//! Events that nobody will try to deliver any more, each with the reason. They outlive the event's
//! own retention.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::schema::whatsapp_dead_letters as dead_letters;
use crate::statement::{Statement, among};

/// A row as clients see it.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = dead_letters, check_for_backend(diesel::pg::Pg))]
pub struct DeadLetter {
    pub event_id: Uuid,
    pub webhook_id: Uuid,
    pub event_type: String,
    pub message_id: String,
    pub from: String,
    pub to: String,
    pub message_type: String,
    pub content: String,
    pub metadata: serde_json::Value,
    pub timestamp: DateTime<Utc>,
    pub attempt_count: i32,
    pub http_status: Option<i32>,
    pub error: Option<String>,
    pub response: Option<String>,
    pub reason: String,
    pub created_at: DateTime<Utc>,
}

/// A row of `list`'s cursor: newest first, ties by id.
pub type Cursor = (DateTime<Utc>, Uuid);

impl DeadLetter {
    /// A webhook's, newest first, at most `limit`, from behind `after`.
    pub async fn list(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
        limit: i64,
        after: Option<Cursor>,
    ) -> QueryResult<Vec<Self>> {
        let mut query = dead_letters::table
            .filter(dead_letters::webhook_id.eq(webhook_id))
            .filter(dead_letters::client_id.eq(client_id))
            .order((
                dead_letters::created_at.desc(),
                dead_letters::event_id.desc(),
            ))
            .limit(limit)
            .select(Self::as_select())
            .into_boxed();
        if let Some((created_at, event_id)) = after {
            // The first condition alone is what the index can be entered by.
            query = query
                .filter(dead_letters::created_at.le(created_at))
                .filter(
                    dead_letters::created_at
                        .lt(created_at)
                        .or(dead_letters::event_id.lt(event_id)),
                );
        }
        query.load(conn).await
    }
}

/// The part of a statement that turns the rows of a CTE (events, with a `reason`) into dead letters.
macro_rules! insert_from {
    ($cte:literal) => {
        concat!(
            r#"INSERT INTO whatsapp_dead_letters (event_id, client_id, webhook_id, connection_id, source_id,
                   event_type, message_id, chat, "from", "to", message_type, content, metadata, "timestamp",
                   attempt_count, http_status, error, response, reason)
               SELECT id, client_id, webhook_id, connection_id, source_id,
                   event_type, message_id, chat, "from", "to", message_type, content, metadata, "timestamp",
                   attempt_count, http_status, error, response, reason
               FROM "#,
            $cte,
            r#" ON CONFLICT (event_id) DO UPDATE SET attempt_count = excluded.attempt_count,
                   http_status = excluded.http_status, error = excluded.error,
                   response = excluded.response, reason = excluded.reason, created_at = now()"#
        )
    };
}
pub(crate) use insert_from;

/// The reason of the dead letters of a webhook that was deleted.
pub const WEBHOOK_DELETED: &str = "the webhook was deleted";

/// The reason of those that were still to be delivered when their time was over.
pub const RETENTION_OVER: &str = "the retention is over";

/// Gives up at most `limit` parked and as many other pending events of one webhook, but for those that are
/// locked at the moment: waiting for a batch that is being recorded, while it waits for our webhook, would
/// be a deadlock. Returns how many.
///
/// Two searches, because no index holds all pending events of a webhook.
pub(crate) async fn bury_pending(
    conn: &mut AsyncPgConnection,
    webhook_id: Uuid,
    reason: &'static str,
    limit: i64,
) -> QueryResult<usize> {
    Statement::new(concat!(
        "WITH parked AS MATERIALIZED (
             SELECT id FROM whatsapp_webhook_events
             WHERE webhook_id = ? AND status = 'pending' AND next_retry_at IS NULL
             LIMIT ? FOR UPDATE SKIP LOCKED),
         others AS MATERIALIZED (
             SELECT id FROM whatsapp_webhook_events
             WHERE webhook_id = ? AND status = 'pending' AND next_retry_at IS NOT NULL
             LIMIT ? FOR UPDATE SKIP LOCKED),
         picked AS (SELECT id FROM parked UNION ALL SELECT id FROM others),
         buried AS (
             UPDATE whatsapp_webhook_events e
             SET status = 'failed', claim_token = NULL, claimed_until = NULL, next_retry_at = NULL, parked = NULL,
                 error = ?
             WHERE ",
        among!("picked"),
        " RETURNING e.*, e.error AS reason) ",
        insert_from!("buried")
    ))
    .bind::<SqlUuid, _>(webhook_id)
    .bind::<BigInt, _>(limit)
    .bind::<SqlUuid, _>(webhook_id)
    .bind::<BigInt, _>(limit)
    .bind::<Text, _>(reason)
    .execute(conn)
    .await
}

/// Forgets the dead letter of an event that is to be tried again.
pub(crate) async fn delete(conn: &mut AsyncPgConnection, event_id: Uuid) -> QueryResult<usize> {
    diesel::delete(dead_letters::table.find(event_id))
        .execute(conn)
        .await
}
