//! What came of attempts, written in batches: the ledger, the events' state, the webhooks' health.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::dead_letter;
use crate::health;
use crate::parking::{self, Reason};
use crate::statement::Statement;

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
    /// The request that carried other events too.
    pub batch_id: Option<Uuid>,
    pub probe: bool,
    pub started_at: DateTime<Utc>,
    pub duration_ms: i32,
    pub http_status: Option<i32>,
    /// A short stable word for the kind of failure, such as `timeout`.
    pub error_class: Option<&'static str>,
    pub error: Option<String>,
    pub response: Option<String>,
    /// For so many seconds the receiver wants nothing more: its webhook's circuit sends no probe before.
    pub leave_alone: f64,
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
    /// A probe that failed: the event waits on with the attempts that it had.
    ProbeFailed,
}

impl Outcome {
    fn status(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::RetryIn(_) | Self::ProbeFailed => "pending",
            Self::Dead { .. } => "failed",
        }
    }

    fn delay(&self) -> Option<f64> {
        match self {
            Self::RetryIn(seconds) => Some(*seconds),
            _ => None,
        }
    }

    fn parked(&self) -> Option<&'static str> {
        (*self == Self::ProbeFailed).then_some(Reason::CircuitOpen.as_str())
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Dead { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// What recording a batch brought with it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Attempts whose claim was lost meanwhile.
    pub superseded: usize,
    /// Events that are due now: the next of their chats, and what is told of webhooks. To be rung.
    pub due: Vec<Uuid>,
}

/// Writes a batch in one transaction: every attempt, then the state of each event whose claim still
/// stands, its dead letter if it is given up, the next event of its chat, and each webhook's health once.
///
/// An attempt whose claim was lost meanwhile is on record as superseded and changes no event. Texts
/// must hold no NUL. At most one record per event.
///
/// A batch may be written again when it is not known what became of it: an attempt that is on record
/// already changes nothing.
pub async fn record(conn: &mut AsyncPgConnection, batch: &[Record]) -> QueryResult<Recorded> {
    conn.transaction(async |conn| {
        let written = write_events(conn, batch).await?;
        let new = batch
            .iter()
            .filter(|record| written.contains_key(&record.attempt_id));
        let chats: Vec<(Uuid, String)> = new
            .clone()
            .filter_map(|record| {
                let chat = written[&record.attempt_id].through.clone()?;
                Some((record.webhook_id, chat))
            })
            .collect();
        let mut due = parking::call_next(conn, &chats).await?;
        due.extend(health::write(conn, new).await?);
        Ok(Recorded {
            superseded: written.values().filter(|row| row.superseded).count(),
            due,
        })
    })
    .await
}

#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Bool)]
    superseded: bool,
    /// The chat that the event was in the way of.
    #[diesel(sql_type = Nullable<Text>)]
    through: Option<String>,
}

/// The attempts that were not on record before.
///
/// The events are updated in the order of their ids, without being locked before: whoever else locks
/// several of them skips what is locked.
async fn write_events(
    conn: &mut AsyncPgConnection,
    batch: &[Record],
) -> QueryResult<HashMap<Uuid, Written>> {
    macro_rules! column {
        ($record:ident => $value:expr) => {
            batch.iter().map(|$record| $value).collect::<Vec<_>>()
        };
    }
    let events = || batch.iter().map(|record| record.event_id);
    let (Some(least), Some(greatest)) = (events().min(), events().max()) else {
        return Ok(HashMap::new());
    };
    let written: Vec<Written> = Statement::new(concat!(
        "WITH input AS MATERIALIZED (
             SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                 AS t (attempt_id, event_id, client_id, webhook_id, token, attempt, batch_id, probe, started_at,
                       duration_ms, http_status, error_class, error, response, status, delay, parked, reason)
             ORDER BY event_id),
         updated AS (
             UPDATE whatsapp_webhook_events e
             SET status = input.status, claim_token = NULL, claimed_until = NULL, parked = input.parked,
                 attempt_count = CASE WHEN input.parked IS NULL THEN input.attempt ELSE e.attempt_count END,
                 next_retry_at = now() + make_interval(secs => input.delay),
                 http_status = input.http_status, error = input.error, response = input.response,
                 delivered_at = CASE WHEN input.status = 'delivered' THEN now() END
             FROM input
             WHERE e.id = input.event_id AND e.claim_token = input.token AND e.id BETWEEN ? AND ?
             RETURNING e.*, input.reason),
         attempts AS (
             INSERT INTO whatsapp_delivery_attempts (id, event_id, client_id, webhook_id, attempt, batch_id, probe,
                 started_at, duration_ms, http_status, error_class, error, response, superseded)
             SELECT attempt_id, event_id, client_id, webhook_id, attempt, batch_id, probe,
                 started_at, duration_ms, http_status, error_class, error, response,
                 NOT EXISTS (SELECT FROM updated WHERE updated.id = event_id)
             FROM input
             ON CONFLICT DO NOTHING
             RETURNING id, event_id, superseded),
         dead AS (SELECT * FROM updated WHERE status = 'failed'),
         letters AS (",
        dead_letter::insert_from!("dead"),
        ") SELECT attempts.id, attempts.superseded,
               CASE WHEN updated.status <> 'pending' THEN updated.order_key END AS through
           FROM attempts LEFT JOIN updated ON updated.id = attempts.event_id"
    ))
    .bind::<Array<SqlUuid>, _>(column!(r => r.attempt_id))
    .bind::<Array<SqlUuid>, _>(column!(r => r.event_id))
    .bind::<Array<Integer>, _>(column!(r => r.client_id))
    .bind::<Array<SqlUuid>, _>(column!(r => r.webhook_id))
    .bind::<Array<SqlUuid>, _>(column!(r => r.token))
    .bind::<Array<Integer>, _>(column!(r => r.attempt))
    .bind::<Array<Nullable<SqlUuid>>, _>(column!(r => r.batch_id))
    .bind::<Array<Bool>, _>(column!(r => r.probe))
    .bind::<Array<Timestamptz>, _>(column!(r => r.started_at))
    .bind::<Array<Integer>, _>(column!(r => r.duration_ms))
    .bind::<Array<Nullable<Integer>>, _>(column!(r => r.http_status))
    .bind::<Array<Nullable<Text>>, _>(column!(r => r.error_class))
    .bind::<Array<Nullable<Text>>, _>(column!(r => r.error.as_deref()))
    .bind::<Array<Nullable<Text>>, _>(column!(r => r.response.as_deref()))
    .bind::<Array<Text>, _>(column!(r => r.outcome.status()))
    .bind::<Array<Nullable<Double>>, _>(column!(r => r.outcome.delay()))
    .bind::<Array<Nullable<Text>>, _>(column!(r => r.outcome.parked()))
    .bind::<Array<Nullable<Text>>, _>(column!(r => r.outcome.reason()))
    .bind::<SqlUuid, _>(least)
    .bind::<SqlUuid, _>(greatest)
    .load(conn)
    .await?;
    Ok(written.into_iter().map(|row| (row.id, row)).collect())
}
