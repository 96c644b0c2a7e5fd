//! Claims: the right to attempt an event once, held under a token until a deadline.
//!
//! A claim sets `claim_token` and moves `next_retry_at` to its deadline, so a dispatcher that dies
//! leaves an event that is simply due again. An outcome is recorded only under the token that still
//! stands (see [`crate::record`]). The clock is PostgreSQL's.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Binary, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::dead_letter;
use crate::payload::Payload;
use crate::statement::Statement;

/// An event in the hands of one dispatcher, with all that an attempt needs.
#[derive(Debug, Clone, QueryableByName)]
pub struct Claimed {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = Integer)]
    pub client_id: i32,
    #[diesel(sql_type = SqlUuid)]
    pub webhook_id: Uuid,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub connection_id: Option<Uuid>,
    #[diesel(sql_type = Text)]
    pub event_type: String,
    #[diesel(sql_type = Text)]
    pub message_id: String,
    #[diesel(sql_type = Text)]
    pub from: String,
    #[diesel(sql_type = Text)]
    pub to: String,
    #[diesel(sql_type = Text)]
    pub message_type: String,
    #[diesel(sql_type = Text)]
    pub content: String,
    #[diesel(sql_type = Text)]
    pub metadata: String,
    #[diesel(sql_type = Timestamptz)]
    pub timestamp: DateTime<Utc>,
    /// Attempts that were recorded before this one.
    #[diesel(sql_type = Integer)]
    pub attempt_count: i32,
    /// Seconds since its commit, by PostgreSQL's clock.
    #[diesel(sql_type = Double)]
    pub age_seconds: f64,
    /// Seconds for which it had been due when it was claimed; negative for one that was rung before.
    #[diesel(sql_type = Double)]
    pub overdue_seconds: f64,
    #[diesel(sql_type = Text)]
    pub webhook_url: String,
    #[diesel(sql_type = Integer)]
    pub max_retries: i32,
    /// Sealed; see [`crate::webhook::open_secret`].
    #[diesel(sql_type = Binary)]
    pub secret: Vec<u8>,
    /// Sealed; present while a rotation overlaps.
    #[diesel(sql_type = Nullable<Binary>)]
    pub previous_secret: Option<Vec<u8>>,
}

impl Claimed {
    /// The body of the delivery, the same bytes at every attempt.
    pub fn body(&self) -> serde_json::Result<Vec<u8>> {
        let metadata: &RawValue = serde_json::from_str(&self.metadata)?;
        serde_json::to_vec(&Payload {
            client_id: self.client_id,
            message_id: &self.message_id,
            from: &self.from,
            to: &self.to,
            timestamp: self.timestamp,
            message_type: &self.message_type,
            content: &self.content,
            metadata,
            event: &self.event_type,
            event_id: self.id,
            connection_id: self.connection_id,
        })
    }
}

/// The end of both claims: it takes the ids that `picked` holds, where their webhook takes deliveries.
macro_rules! take_picked {
    () => {
        r#"UPDATE whatsapp_webhook_events e
           SET claim_token = ?, next_retry_at = now() + make_interval(secs => ?)
           FROM picked, whatsapp_webhooks w
           WHERE e.id = picked.id AND w.id = e.webhook_id AND w.is_active AND w.deleted_at IS NULL
           RETURNING e.id, e.client_id, e.webhook_id, e.connection_id, e.event_type, e.message_id, e."from",
               e."to", e.message_type, e.content, e.metadata::text AS metadata, e."timestamp",
               e.attempt_count, extract(epoch FROM now() - e.created_at)::float8 AS age_seconds,
               extract(epoch FROM now() - picked.due)::float8 AS overdue_seconds, w.webhook_url, w.max_retries, w.secret,
               CASE WHEN w.previous_secret_expires_at > now() THEN w.previous_secret END AS previous_secret"#
    };
}

/// Claims events that were rung: those never attempted, or due. A ring that is replayed, or late,
/// claims nothing and bypasses no backoff.
pub async fn claim(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
    token: Uuid,
    deadline_seconds: f64,
) -> QueryResult<Vec<Claimed>> {
    Statement::new(concat!(
        "WITH picked AS MATERIALIZED (
             SELECT id, next_retry_at AS due FROM whatsapp_webhook_events
             WHERE id = ANY(?) AND status = 'pending'
               AND ((attempt_count = 0 AND claim_token IS NULL AND parked IS NULL) OR next_retry_at <= now())
             ORDER BY id FOR UPDATE SKIP LOCKED) ",
        take_picked!()
    ))
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<SqlUuid, _>(token)
    .bind::<Double, _>(deadline_seconds)
    .load(conn)
    .await
}

/// Claims whatever is due, oldest first: retries, lost doorbells, manual retries, and what a dead
/// dispatcher held.
pub async fn claim_due(
    conn: &mut AsyncPgConnection,
    limit: i64,
    token: Uuid,
    deadline_seconds: f64,
) -> QueryResult<Vec<Claimed>> {
    Statement::new(concat!(
        "WITH picked AS MATERIALIZED (
             SELECT id, next_retry_at AS due FROM whatsapp_webhook_events
             WHERE status = 'pending' AND next_retry_at <= now()
             ORDER BY next_retry_at LIMIT ? FOR UPDATE SKIP LOCKED) ",
        take_picked!()
    ))
    .bind::<BigInt, _>(limit)
    .bind::<SqlUuid, _>(token)
    .bind::<Double, _>(deadline_seconds)
    .load(conn)
    .await
}

/// A claim that is given back without an attempt, to be due again after `delay_seconds`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Release {
    pub event_id: Uuid,
    pub token: Uuid,
    pub delay_seconds: f64,
}

/// Gives claims back. One that is no longer held is left alone. Returns how many were given back.
pub async fn release(conn: &mut AsyncPgConnection, claims: &[Release]) -> QueryResult<usize> {
    Statement::new(
        "WITH input AS MATERIALIZED (
             SELECT * FROM unnest(?, ?, ?) AS t (id, token, delay)),
         held AS MATERIALIZED (
             SELECT e.id, input.delay FROM whatsapp_webhook_events e JOIN input ON input.id = e.id
             WHERE e.claim_token = input.token
             ORDER BY e.id FOR UPDATE OF e)
         UPDATE whatsapp_webhook_events e
         SET claim_token = NULL, next_retry_at = now() + make_interval(secs => held.delay)
         FROM held WHERE e.id = held.id AND e.status = 'pending'",
    )
    .bind::<Array<SqlUuid>, _>(claims.iter().map(|c| c.event_id).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(claims.iter().map(|c| c.token).collect::<Vec<_>>())
    .bind::<Array<Double>, _>(claims.iter().map(|c| c.delay_seconds).collect::<Vec<_>>())
    .execute(conn)
    .await
}

/// Takes due events whose webhook takes no deliveries out of the poller's way: those of a deleted
/// webhook become dead letters, those of an inactive one are parked until it is active again. To be
/// called when [`claim_due`] claims less than its limit: it looks at the same `limit` oldest.
///
/// The webhook rows are share-locked, so that an activation that releases parked events cannot run
/// between the look and the parking; one that is locked by another is left for the next time, since a
/// wait for a recorder could be a deadlock. Returns how many events were set aside.
pub async fn set_aside(conn: &mut AsyncPgConnection, limit: i64) -> QueryResult<usize> {
    Statement::new(concat!(
        "WITH due AS MATERIALIZED (
             SELECT id, webhook_id FROM whatsapp_webhook_events
             WHERE status = 'pending' AND next_retry_at <= now()
             ORDER BY next_retry_at LIMIT ?),
         closed AS MATERIALIZED (
             SELECT id, deleted_at FROM whatsapp_webhooks
             WHERE id IN (SELECT webhook_id FROM due) AND (NOT is_active OR deleted_at IS NOT NULL)
             FOR SHARE SKIP LOCKED),
         picked AS MATERIALIZED (
             SELECT e.id, closed.deleted_at IS NOT NULL AS deleted
             FROM whatsapp_webhook_events e JOIN due ON due.id = e.id JOIN closed ON closed.id = e.webhook_id
             WHERE e.status = 'pending' AND e.next_retry_at <= now()
             FOR UPDATE OF e SKIP LOCKED),
         aside AS (
             UPDATE whatsapp_webhook_events e
             SET claim_token = NULL, next_retry_at = NULL,
                 status = CASE WHEN deleted THEN 'failed' ELSE status END,
                 error = CASE WHEN deleted THEN ? ELSE error END,
                 parked = CASE WHEN NOT deleted THEN 'the webhook is not active' END
             FROM picked WHERE e.id = picked.id
             RETURNING e.*, error AS reason),
         buried AS (SELECT * FROM aside WHERE status = 'failed'),
         letters AS (",
        dead_letter::insert_from!("buried"),
        ") SELECT count(*) AS count FROM aside"
    ))
    .bind::<BigInt, _>(limit)
    .bind::<Text, _>(dead_letter::WEBHOOK_DELETED)
    .get_result::<Count>(conn)
    .await
    .map(|row| usize::try_from(row.count).unwrap_or(usize::MAX))
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}
