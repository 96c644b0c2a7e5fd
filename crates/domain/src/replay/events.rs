use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::result::Error::RollbackTransaction;
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{Id, ROWS, Span, Step, bounds, done, look, undone};
use crate::parking::Reason;
use crate::statement::{Statement, among};

/// Requeues a webhook's settled events, oldest first, so that chats stay in order. What is committed after
/// it began is not among them.
#[derive(Debug)]
pub struct Events {
    client_id: i32,
    webhook_id: Uuid,
    statuses: Vec<&'static str>,
    span: Span,
    /// Sequences: behind the first, up to the second.
    after: i64,
    last: i64,
    tries: u32,
}

/// The times of two commits may differ by so much from what their sequences say.
const SLACK: TimeDelta = TimeDelta::hours(1);

#[derive(QueryableByName)]
struct Ends {
    #[diesel(sql_type = Nullable<BigInt>)]
    first: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    last: Option<i64>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = BigInt)]
    sequence: i64,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Bool)]
    matches: bool,
}

impl Events {
    /// Of events of these statuses, none of which is `pending`.
    pub async fn begin(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
        statuses: &[&'static str],
        span: Span,
    ) -> QueryResult<Self> {
        let ends: Ends = Statement::new(
            "SELECT min(sequence) AS first, max(sequence) AS last FROM whatsapp_webhook_events
             WHERE webhook_id = ?",
        )
        .bind::<SqlUuid, _>(webhook_id)
        .get_result(conn)
        .await?;
        let (first, last) = ends.first.zip(ends.last).unwrap_or((0, -1));
        let mut events = Self {
            client_id,
            webhook_id,
            statuses: statuses.to_vec(),
            span,
            after: first - 1,
            last,
            tries: 0,
        };
        if let Some(since) = span.since {
            events.skip_to(conn, since - SLACK).await?;
        }
        Ok(events)
    }

    /// Halves the sequences until those that were committed before that moment are behind.
    async fn skip_to(
        &mut self,
        conn: &mut AsyncPgConnection,
        at: DateTime<Utc>,
    ) -> QueryResult<()> {
        let (mut behind, mut beyond) = (self.after, self.last);
        while beyond - behind > ROWS {
            let middle = behind + (beyond - behind) / 2;
            let next: Option<Row> = Statement::new(
                "SELECT id, sequence, created_at, true AS matches FROM whatsapp_webhook_events
                 WHERE webhook_id = ? AND sequence > ? ORDER BY sequence LIMIT 1",
            )
            .bind::<SqlUuid, _>(self.webhook_id)
            .bind::<BigInt, _>(middle)
            .get_result(conn)
            .await
            .optional()?;
            match next {
                Some(row) if row.created_at < at => behind = row.sequence.min(beyond),
                _ => beyond = middle,
            }
        }
        self.after = behind;
        Ok(())
    }

    pub async fn step(&mut self, conn: &mut AsyncPgConnection) -> QueryResult<Step> {
        let window = self.window(conn).await?;
        let Some(end) = window.last() else {
            return Ok(Step::End);
        };
        let later = |until: DateTime<Utc>| window.iter().all(|row| row.created_at > until + SLACK);
        if self.span.until.is_some_and(later) {
            return Ok(Step::End);
        }
        let wanted: Vec<Uuid> = window
            .iter()
            .filter(|row| row.matches)
            .map(|row| row.id)
            .collect();
        let Some(count) = self.requeue(conn, &wanted).await? else {
            return Ok(Step::NoReceiver);
        };
        let step = done(wanted.len(), count, &mut self.tries);
        if let Step::Done(_) = step {
            self.after = end.sequence;
        }
        Ok(step)
    }

    /// The next rows, whether they match or not: a step looks at no more than so many.
    async fn window(&self, conn: &mut AsyncPgConnection) -> QueryResult<Vec<Row>> {
        Statement::new(
            "SELECT id, sequence, created_at,
                 status = ANY(?) AND client_id = ? AND created_at >= coalesce(?, '-infinity')
                     AND created_at < coalesce(?, 'infinity') AS matches
             FROM whatsapp_webhook_events
             WHERE webhook_id = ? AND sequence > ? AND sequence <= ?
             ORDER BY sequence LIMIT ?",
        )
        .bind::<Array<Text>, _>(&self.statuses)
        .bind::<Integer, _>(self.client_id)
        .bind::<Nullable<Timestamptz>, _>(self.span.since)
        .bind::<Nullable<Timestamptz>, _>(self.span.until)
        .bind::<SqlUuid, _>(self.webhook_id)
        .bind::<BigInt, _>(self.after)
        .bind::<BigInt, _>(self.last)
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
                let requeued = requeue(conn, ids, &self.statuses).await?;
                match look(conn, self.webhook_id).await? {
                    true => Ok(requeued.len()),
                    false => Err(RollbackTransaction),
                }
            })
            .await;
        undone(requeued)
    }
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
