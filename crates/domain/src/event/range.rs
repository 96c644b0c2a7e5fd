//! Which of a webhook's events a span of time may hold. Sequences follow the order of commit and times nearly do, so
//! that a few look-ups find the ends, where an index on the times would be written with every delivery.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::span::Span;
use crate::statement::Statement;

/// Sequences of events: behind the first, before the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub after: i64,
    pub before: i64,
}

/// So many sequences are looked through rather than halved again.
const FEW: i64 = 1000;

#[derive(QueryableByName)]
struct Ends {
    #[diesel(sql_type = Nullable<BigInt>)]
    after: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    before: Option<i64>,
}

impl Range {
    pub const ALL: Self = Self {
        after: i64::MIN,
        before: i64::MAX,
    };

    /// Where all of a webhook's events are that were committed within the span, and some that were not. The times
    /// of two commits differ by no more than `slack` from what their sequences say.
    pub async fn of(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
        span: Span,
        slack: TimeDelta,
    ) -> QueryResult<Self> {
        let mut range = Self::ALL;
        if let Some(since) = span.since {
            let ends = Self::around(conn, client_id, webhook_id, since - slack).await?;
            range.after = ends.after;
        }
        if let Some(until) = span.until {
            let ends = Self::around(conn, client_id, webhook_id, until + slack).await?;
            range.before = ends.before;
        }
        Ok(range)
    }

    /// Halves the webhook's sequences until few are left among which the events of that moment are.
    async fn around(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
        at: DateTime<Utc>,
    ) -> QueryResult<Self> {
        let ends: Option<Ends> = Statement::new(
            "WITH RECURSIVE webhook AS (
                 SELECT id FROM whatsapp_webhooks WHERE id = ? AND client_id = ?),
             statuses AS (SELECT unnest('{pending,delivered,failed}'::text[]) AS status),
             halves AS (
                 SELECT 0 AS step, min(low) - 1 AS after, max(high) + 1 AS before
                 FROM statuses CROSS JOIN LATERAL (
                     SELECT min(sequence) AS low, max(sequence) AS high FROM whatsapp_webhook_events e
                     WHERE e.webhook_id = (SELECT id FROM webhook) AND e.status = statuses.status) AS ends
                 UNION ALL
                 SELECT step + 1,
                     CASE WHEN next.created_at < ? THEN least(next.sequence, before - 1) ELSE after END,
                     CASE WHEN next.created_at < ? THEN before ELSE middle + 1 END
                 FROM halves
                 CROSS JOIN LATERAL (SELECT after + (before - after) / 2 AS middle) AS half
                 LEFT JOIN LATERAL (
                     SELECT one.* FROM statuses CROSS JOIN LATERAL (
                         SELECT sequence, created_at FROM whatsapp_webhook_events e
                         WHERE e.webhook_id = (SELECT id FROM webhook) AND e.status = statuses.status
                             AND e.sequence > middle ORDER BY e.sequence LIMIT 1) AS one
                     ORDER BY one.sequence LIMIT 1) AS next ON true
                 WHERE before - after > ?)
             SELECT after, before FROM halves ORDER BY step DESC LIMIT 1",
        )
        .bind::<SqlUuid, _>(webhook_id)
        .bind::<Integer, _>(client_id)
        .bind::<Timestamptz, _>(at)
        .bind::<Timestamptz, _>(at)
        .bind::<BigInt, _>(FEW)
        .get_result(conn)
        .await
        .optional()?;
        let ends = ends.and_then(|ends| ends.after.zip(ends.before));
        Ok(ends.map_or(Self::ALL, |(after, before)| Self { after, before }))
    }
}
