//! What becomes of rows that have outlived the retention, before their partition is dropped: an event that is
//! still to be delivered becomes a dead letter, and what lies in a default partition is deleted. In small
//! batches, each a transaction of its own, that wait for nobody.
//!
//! A row is old by its id, which is its message's time, and by when it was committed: a message that WhatsApp
//! kept for weeks has its whole time here.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::dead_letter;
use crate::ids;
use crate::parking;
use crate::statement::{Statement, among, unclaimed};

/// Rows that one transaction takes.
const BATCH: i64 = 500;

/// Gives up the pending events from before `cutoff`, but for those that are claimed or locked at the moment;
/// the next event of each of their chats goes on. Returns how many.
pub(crate) async fn bury(
    conn: &mut AsyncPgConnection,
    cutoff: DateTime<Utc>,
) -> QueryResult<usize> {
    let mut buried = 0;
    loop {
        let batch = conn
            .transaction(async |conn| {
                let events = bury_batch(conn, cutoff).await?;
                let chats: Vec<(Uuid, String)> = events
                    .iter()
                    .filter_map(|event| Some((event.webhook_id, event.order_key.clone()?)))
                    .collect();
                parking::call_next(conn, &chats).await?;
                QueryResult::Ok(events.len())
            })
            .await?;
        if batch == 0 {
            return Ok(buried);
        }
        buried += batch;
    }
}

#[derive(QueryableByName)]
struct Buried {
    #[diesel(sql_type = SqlUuid)]
    webhook_id: Uuid,
    #[diesel(sql_type = Nullable<Text>)]
    order_key: Option<String>,
}

/// Two searches, one for each of the indexes that hold pending events only.
async fn bury_batch(
    conn: &mut AsyncPgConnection,
    cutoff: DateTime<Utc>,
) -> QueryResult<Vec<Buried>> {
    Statement::new(concat!(
        "WITH parked AS MATERIALIZED (
             SELECT id FROM whatsapp_webhook_events
             WHERE id < ? AND created_at < ? AND status = 'pending' AND next_retry_at IS NULL
             LIMIT ? FOR UPDATE SKIP LOCKED),
         waiting AS MATERIALIZED (
             SELECT id FROM whatsapp_webhook_events e
             WHERE id < ? AND created_at < ? AND status = 'pending' AND next_retry_at IS NOT NULL AND ",
        unclaimed!("e"),
        " LIMIT ? FOR UPDATE SKIP LOCKED),
         picked AS (SELECT id FROM parked UNION ALL SELECT id FROM waiting),
         buried AS (
             UPDATE whatsapp_webhook_events e
             SET status = 'failed', claim_token = NULL, claimed_until = NULL, next_retry_at = NULL, parked = NULL,
                 error = ?
             WHERE ",
        among!("picked"),
        " RETURNING e.*, e.error AS reason),
         letters AS (",
        dead_letter::insert_from!("buried"),
        ") SELECT webhook_id, order_key FROM buried"
    ))
    .bind::<SqlUuid, _>(ids::floor(cutoff))
    .bind::<Timestamptz, _>(cutoff)
    .bind::<BigInt, _>(BATCH)
    .bind::<SqlUuid, _>(ids::floor(cutoff))
    .bind::<Timestamptz, _>(cutoff)
    .bind::<BigInt, _>(BATCH)
    .bind::<Text, _>(dead_letter::RETENTION_OVER)
    .load(conn)
    .await
}

/// The deletion of a batch from a default partition, behind the last row that the batch before took.
macro_rules! delete_from {
    ($table:literal, $committed:literal $(, $and:literal)?) => {
        concat!(
            "WITH old AS MATERIALIZED (
                 SELECT id FROM ", $table, " WHERE id > ? AND id < ? AND ", $committed, " < ?", $($and,)?
            "    ORDER BY id LIMIT ? FOR UPDATE SKIP LOCKED),
             deleted AS (DELETE FROM ", $table, " e WHERE ", among!("old"), " RETURNING e.id)
             SELECT count(*) AS count, (SELECT id FROM deleted ORDER BY id DESC LIMIT 1) AS last FROM deleted"
        )
    };
}

/// The deletions for the default partition of each table.
const DELETIONS: [(&str, &str); 3] = [
    (
        "whatsapp_messages",
        delete_from!("whatsapp_messages_default", "created_at"),
    ),
    (
        "whatsapp_webhook_events",
        delete_from!(
            "whatsapp_webhook_events_default",
            "created_at",
            " AND status <> 'pending'"
        ),
    ),
    (
        "whatsapp_delivery_attempts",
        delete_from!("whatsapp_delivery_attempts_default", "started_at"),
    ),
];

/// Deletes what is from before `cutoff` out of a table's default partition, but for events that are to be
/// delivered. Returns how many.
pub(crate) async fn delete_from_default(
    conn: &mut AsyncPgConnection,
    table: &str,
    cutoff: DateTime<Utc>,
) -> QueryResult<usize> {
    #[derive(QueryableByName)]
    struct Deleted {
        #[diesel(sql_type = BigInt)]
        count: i64,
        #[diesel(sql_type = Nullable<SqlUuid>)]
        last: Option<Uuid>,
    }
    let deletions = DELETIONS.iter().filter(|(of, _)| *of == table);
    let (mut total, mut after) = (0, Uuid::nil());
    for (_, deletion) in deletions {
        loop {
            let deleted: Deleted = Statement::new(deletion)
                .bind::<SqlUuid, _>(after)
                .bind::<SqlUuid, _>(ids::floor(cutoff))
                .bind::<Timestamptz, _>(cutoff)
                .bind::<BigInt, _>(BATCH)
                .get_result(conn)
                .await?;
            let Some(last) = deleted.last else { break };
            total += usize::try_from(deleted.count).unwrap_or(0);
            after = last;
        }
    }
    Ok(total)
}
