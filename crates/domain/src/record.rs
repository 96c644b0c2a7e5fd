//! What came of attempts, written in batches: the ledger, the events' state, the webhooks' health.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::dead_letter;
use crate::statement::Statement;
use crate::webhook::FAILURES_UNTIL_FAILED;

/// One attempt and what it means for its event.
#[derive(Debug, Clone)]
pub struct Record {
    /// The attempt's own id; a UUIDv7, whose time places it in a partition.
    pub attempt_id: Uuid,
    pub event_id: Uuid,
    pub client_id: i32,
    pub webhook_id: Uuid,
    /// The claim under which the attempt was made.
    pub token: Uuid,
    /// From 1.
    pub attempt: i32,
    pub started_at: DateTime<Utc>,
    pub duration_ms: i32,
    pub http_status: Option<i32>,
    /// A short stable word for the kind of failure, such as `timeout`.
    pub error_class: Option<&'static str>,
    pub error: Option<String>,
    pub response: Option<String>,
    pub outcome: Outcome,
}

/// What an attempt means for its event. A failed delivery is a value, not an error.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Delivered,
    /// Due again after so many seconds.
    RetryIn(f64),
    /// A dead letter. `gone`: the receiver wants nothing any more (410), deactivate the webhook.
    Dead {
        reason: String,
        gone: bool,
    },
}

impl Outcome {
    fn status(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::RetryIn(_) => "pending",
            Self::Dead { .. } => "failed",
        }
    }

    fn delay(&self) -> Option<f64> {
        match self {
            Self::RetryIn(seconds) => Some(*seconds),
            _ => None,
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Dead { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// Writes a batch in one transaction: every attempt, then the state of each event whose claim still
/// stands, its dead letter if it is given up, and each webhook's health once.
///
/// An attempt whose claim was lost meanwhile is on record as superseded and changes no event. Texts
/// must hold no NUL. At most one record per event. Returns how many attempts were superseded.
///
/// A batch may be written again when it is not known what became of it: an attempt that is on record
/// already changes nothing.
pub async fn record(conn: &mut AsyncPgConnection, batch: &[Record]) -> QueryResult<usize> {
    conn.transaction(async |conn| {
        let written = write_events(conn, batch).await?;
        let new = batch
            .iter()
            .filter(|record| written.contains_key(&record.attempt_id));
        write_health(conn, &health(new)).await?;
        Ok(written.values().filter(|superseded| **superseded).count())
    })
    .await
}

/// The attempts that were not on record before, each with whether it was superseded.
async fn write_events(
    conn: &mut AsyncPgConnection,
    batch: &[Record],
) -> QueryResult<HashMap<Uuid, bool>> {
    #[derive(QueryableByName)]
    struct Written {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
        #[diesel(sql_type = Bool)]
        superseded: bool,
    }
    macro_rules! column {
        ($record:ident => $value:expr) => {
            batch.iter().map(|$record| $value).collect::<Vec<_>>()
        };
    }
    let written: Vec<Written> = Statement::new(concat!(
        "WITH input AS MATERIALIZED (
             SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                 AS t (attempt_id, event_id, client_id, webhook_id, token, attempt, started_at, duration_ms,
                       http_status, error_class, error, response, status, delay, reason)),
         held AS MATERIALIZED (
             SELECT input.* FROM whatsapp_webhook_events e JOIN input ON input.event_id = e.id
             WHERE e.claim_token = input.token
             ORDER BY e.id FOR UPDATE OF e),
         updated AS (
             UPDATE whatsapp_webhook_events e
             SET status = held.status, attempt_count = held.attempt, claim_token = NULL,
                 next_retry_at = now() + make_interval(secs => held.delay),
                 http_status = held.http_status, error = held.error, response = held.response,
                 delivered_at = CASE WHEN held.status = 'delivered' THEN now() END
             FROM held WHERE e.id = held.event_id
             RETURNING e.*, held.reason),
         attempts AS (
             INSERT INTO whatsapp_delivery_attempts (id, event_id, client_id, webhook_id, attempt, started_at,
                 duration_ms, http_status, error_class, error, response, superseded)
             SELECT attempt_id, event_id, client_id, webhook_id, attempt, started_at,
                 duration_ms, http_status, error_class, error, response,
                 NOT EXISTS (SELECT FROM updated WHERE updated.id = event_id)
             FROM input
             ON CONFLICT DO NOTHING
             RETURNING id, superseded),
         dead AS (SELECT * FROM updated WHERE status = 'failed'),
         letters AS (",
        dead_letter::insert_from!("dead"),
        ") SELECT id, superseded FROM attempts"
    ))
    .bind::<Array<SqlUuid>, _>(column!(r => r.attempt_id))
    .bind::<Array<SqlUuid>, _>(column!(r => r.event_id))
    .bind::<Array<Integer>, _>(column!(r => r.client_id))
    .bind::<Array<SqlUuid>, _>(column!(r => r.webhook_id))
    .bind::<Array<SqlUuid>, _>(column!(r => r.token))
    .bind::<Array<Integer>, _>(column!(r => r.attempt))
    .bind::<Array<Timestamptz>, _>(column!(r => r.started_at))
    .bind::<Array<Integer>, _>(column!(r => r.duration_ms))
    .bind::<Array<Nullable<Integer>>, _>(column!(r => r.http_status))
    .bind::<Array<Nullable<Text>>, _>(column!(r => r.error_class))
    .bind::<Array<Nullable<Text>>, _>(column!(r => r.error.as_deref()))
    .bind::<Array<Nullable<Text>>, _>(column!(r => r.response.as_deref()))
    .bind::<Array<Text>, _>(column!(r => r.outcome.status()))
    .bind::<Array<Nullable<Double>>, _>(column!(r => r.outcome.delay()))
    .bind::<Array<Nullable<Text>>, _>(column!(r => r.outcome.reason()))
    .load(conn)
    .await?;
    Ok(written
        .into_iter()
        .map(|row| (row.id, row.superseded))
        .collect())
}

/// What a batch says of one webhook.
#[derive(Debug, Clone, PartialEq)]
struct Health<'a> {
    /// Something was delivered: failures before that no longer count.
    succeeded: bool,
    /// Failures since the last success in the batch.
    failures: i32,
    last_error: Option<&'a str>,
    last_attempt_at: DateTime<Utc>,
    gone: bool,
}

/// In the order of the batch, by webhook (and in their order, so that two writers cannot deadlock).
fn health<'a>(batch: impl Iterator<Item = &'a Record>) -> BTreeMap<Uuid, Health<'a>> {
    let mut map: BTreeMap<Uuid, Health<'_>> = BTreeMap::new();
    for record in batch {
        let health = map.entry(record.webhook_id).or_insert(Health {
            succeeded: false,
            failures: 0,
            last_error: None,
            last_attempt_at: record.started_at,
            gone: false,
        });
        health.last_attempt_at = health.last_attempt_at.max(record.started_at);
        match &record.outcome {
            Outcome::Delivered => {
                health.succeeded = true;
                health.failures = 0;
                health.last_error = None;
            }
            Outcome::RetryIn(_) | Outcome::Dead { .. } => {
                health.failures = health.failures.saturating_add(1);
                health.last_error = record.error.as_deref();
                health.gone |= matches!(record.outcome, Outcome::Dead { gone: true, .. });
            }
        }
    }
    map
}

/// Counts from the locked row: as the statement's snapshot has it, another's failures would be missing.
async fn write_health(
    conn: &mut AsyncPgConnection,
    health: &BTreeMap<Uuid, Health<'_>>,
) -> QueryResult<usize> {
    Statement::new(
        "WITH input AS MATERIALIZED (
             SELECT * FROM unnest(?, ?, ?, ?, ?, ?)
                 AS t (id, succeeded, failures, last_error, last_attempt_at, gone)),
         locked AS MATERIALIZED (
             SELECT input.*,
                 input.failures + CASE WHEN input.succeeded THEN 0 ELSE w.failure_count END AS counted
             FROM whatsapp_webhooks w JOIN input ON input.id = w.id
             ORDER BY w.id FOR NO KEY UPDATE OF w)
         UPDATE whatsapp_webhooks w
         SET failure_count = locked.counted,
             status = CASE WHEN locked.counted >= ? THEN 'failed'
                           WHEN locked.succeeded THEN 'active' ELSE w.status END,
             last_error = CASE WHEN locked.failures > 0 THEN locked.last_error ELSE w.last_error END,
             last_success_at = CASE WHEN locked.succeeded THEN now() ELSE w.last_success_at END,
             last_attempt_at = greatest(w.last_attempt_at, locked.last_attempt_at),
             is_active = w.is_active AND NOT locked.gone
         FROM locked
         WHERE w.id = locked.id",
    )
    .bind::<Array<SqlUuid>, _>(health.keys().copied().collect::<Vec<_>>())
    .bind::<Array<Bool>, _>(health.values().map(|h| h.succeeded).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(health.values().map(|h| h.failures).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(health.values().map(|h| h.last_error).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(health.values().map(|h| h.last_attempt_at).collect::<Vec<_>>())
    .bind::<Array<Bool>, _>(health.values().map(|h| h.gone).collect::<Vec<_>>())
    .bind::<Integer, _>(FAILURES_UNTIL_FAILED)
    .execute(conn)
    .await
}
