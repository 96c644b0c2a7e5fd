use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::result::Error::RollbackTransaction;
use diesel::sql_types::{Array, BigInt, Integer, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{Id, ROWS, Settled, Step, bounds, done, look, undone};
use crate::event::Range;
use crate::parking::Reason;
use crate::span::Span;
use crate::statement::{Statement, among};

/// Requeues a webhook's settled events, oldest first, so that chats stay in order. What is committed after
/// it began is not among them.
#[derive(Debug)]
pub struct Events {
    client_id: i32,
    webhook_id: Uuid,
    statuses: &'static [&'static str],
    span: Span,
    /// What is left of it.
    range: Range,
    tries: u32,
}

/// The times of two commits may differ by so much from what their sequences say.
const SLACK: TimeDelta = TimeDelta::hours(1);

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = BigInt)]
    sequence: i64,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
}

impl Events {
    pub async fn begin(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
        settled: Settled,
        span: Span,
    ) -> QueryResult<Self> {
        let mut range = Range::of(conn, client_id, webhook_id, span, SLACK).await?;
        range.before = range.before.min(next_sequence(conn).await?);
        Ok(Self {
            client_id,
            webhook_id,
            statuses: settled.statuses(),
            span,
            range,
            tries: 0,
        })
    }

    pub async fn step(&mut self, conn: &mut AsyncPgConnection) -> QueryResult<Step> {
        let window = self.window(conn).await?;
        let Some(end) = window.last() else {
            return Ok(Step::End);
        };
        let wanted: Vec<Uuid> = window
            .iter()
            .filter(|row| self.span.holds(row.created_at))
            .map(|row| row.id)
            .collect();
        let Some(count) = self.requeue(conn, &wanted).await? else {
            return Ok(Step::NoReceiver);
        };
        let step = done(wanted.len(), count, &mut self.tries);
        if let Step::Done(_) = step {
            self.range.after = end.sequence;
        }
        Ok(step)
    }

    /// The next rows, within the span or not: a step looks at no more than so many.
    async fn window(&self, conn: &mut AsyncPgConnection) -> QueryResult<Vec<Row>> {
        Statement::new(
            "SELECT e.* FROM unnest(?) AS wanted (status) CROSS JOIN LATERAL (
                 SELECT id, sequence, created_at FROM whatsapp_webhook_events e
                 WHERE e.status = wanted.status
                     AND e.webhook_id = (SELECT id FROM whatsapp_webhooks WHERE id = ? AND client_id = ?)
                     AND e.sequence > ? AND e.sequence < ?
                 ORDER BY e.sequence LIMIT ?) AS e
             ORDER BY e.sequence LIMIT ?",
        )
        .bind::<Array<Text>, _>(self.statuses)
        .bind::<SqlUuid, _>(self.webhook_id)
        .bind::<Integer, _>(self.client_id)
        .bind::<BigInt, _>(self.range.after)
        .bind::<BigInt, _>(self.range.before)
        .bind::<BigInt, _>(ROWS)
        .bind::<BigInt, _>(ROWS)
        .load(conn)
        .await
    }

    /// How many were; `None` when the webhook takes nothing.
    async fn requeue(
        &self,
        conn: &mut AsyncPgConnection,
        ids: &[Uuid],
    ) -> QueryResult<Option<usize>> {
        if ids.is_empty() {
            return Ok(Some(0));
        }
        let requeued = conn
            .transaction(async |conn| {
                let requeued = requeue(conn, ids, self.statuses).await?;
                match look(conn, self.webhook_id).await? {
                    true => Ok(requeued.len()),
                    false => Err(RollbackTransaction),
                }
            })
            .await;
        undone(requeued)
    }
}

/// No event of a statement that begins from now on has a lesser one.
async fn next_sequence(conn: &mut AsyncPgConnection) -> QueryResult<i64> {
    #[derive(QueryableByName)]
    struct Next {
        #[diesel(sql_type = BigInt)]
        next: i64,
    }
    Statement::new("SELECT last_value + 1 AS next FROM whatsapp_webhook_events_sequence")
        .get_result::<Next>(conn)
        .await
        .map(|row| row.next)
}

/// Parks these events, as if nothing had been tried yet, and forgets their dead letters; but for those
/// that are locked, or have another status by now. Returns the ones that it did.
pub(super) async fn requeue(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
    statuses: &[&'static str],
) -> QueryResult<Vec<Uuid>> {
    let Some((least, greatest)) = bounds(ids) else {
        return Ok(Vec::new());
    };
    let rows: Vec<Id> = Statement::new(concat!(
        "WITH picked AS MATERIALIZED (
             SELECT id FROM whatsapp_webhook_events
             WHERE id = ANY(?) AND id BETWEEN ? AND ? AND status = ANY(?)
             ORDER BY id FOR UPDATE SKIP LOCKED),
         requeued AS (
             UPDATE whatsapp_webhook_events e
             SET status = 'pending', attempt_count = 0, claim_token = NULL, claimed_until = NULL,
                 next_retry_at = NULL, parked = ?, http_status = NULL, error = NULL, response = NULL, delivered_at = NULL,
                 dead_letter_deleted_at = NULL
             WHERE ",
        among!("picked"),
        " RETURNING e.id),
         forgotten AS (
             DELETE FROM whatsapp_dead_letters WHERE event_id = ANY(ARRAY(SELECT id FROM picked)))
         SELECT id FROM requeued"
    ))
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<SqlUuid, _>(least)
    .bind::<SqlUuid, _>(greatest)
    .bind::<Array<Text>, _>(statuses)
    .bind::<Text, _>(Reason::Backlog.as_str())
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}
