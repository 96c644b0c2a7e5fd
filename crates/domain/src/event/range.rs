//! Which of a webhook's events a span of time may hold. Sequences follow the order of commit and times nearly do, so
//! that a few look-ups find the ends, where an index on the times would be written with every delivery.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::ids;
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

const DAY: TimeDelta = TimeDelta::days(1);

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

    /// Where none of the events are that were committed outside of the span.
    pub(super) async fn within(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
        span: Span,
        slack: TimeDelta,
    ) -> QueryResult<Self> {
        let mut range = Self::ALL;
        if let Some(since) = span.since {
            let ends = Self::around(conn, client_id, webhook_id, since + slack).await?;
            range.after = ends.before.saturating_sub(1);
        }
        if let Some(until) = span.until {
            let ends = Self::around(conn, client_id, webhook_id, until - slack).await?;
            range.before = ends.after.saturating_add(1);
        }
        Ok(range)
    }

    pub(super) fn is_empty(self) -> bool {
        self.before <= self.after.saturating_add(1)
    }

    /// What of this is on either side of the other, which is not empty.
    pub(super) fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let older = Self {
            after: self.after,
            before: other.after.saturating_add(1),
        };
        let newer = Self {
            after: other.before.saturating_sub(1),
            before: self.before,
        };
        [older, newer].into_iter().filter(|range| !range.is_empty())
    }

    /// The ends of few sequences of the webhook's, among which the events of that moment are.
    async fn around(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
        at: DateTime<Utc>,
    ) -> QueryResult<Self> {
        // Of whole days, as partitions are.
        let day = at.duration_trunc(DAY).unwrap_or(at);
        let near = ids::floor(day - DAY)..ids::floor(day + DAY * 2);
        let mut ends = halve(conn, client_id, webhook_id, at, near).await?;
        if ends.after.is_none() || ends.before.is_none() {
            // What came late has another day's id. Of all events, there may be none on one side.
            ends = halve(conn, client_id, webhook_id, at, Uuid::nil()..Uuid::max()).await?;
        }
        Ok(Self {
            after: ends.after.unwrap_or(i64::MIN),
            before: ends.before.unwrap_or(i64::MAX),
        })
    }
}

/// Halves the sequences of those of a webhook's events that have one of these ids, until few are left. An end is the
/// sequence of an event that was seen to be on its side of the moment, so that all beyond it are, whatever their ids; `None`
/// where none was seen.
///
/// The ids are there to leave partitions out. Written as they are, PostgreSQL does not expect them to be so few that it would
/// rather read all of them.
async fn halve(
    conn: &mut AsyncPgConnection,
    client_id: i32,
    webhook_id: Uuid,
    at: DateTime<Utc>,
    ids: std::ops::Range<Uuid>,
) -> QueryResult<Ends> {
    Statement::new(
        "WITH RECURSIVE webhook AS (
             SELECT id FROM whatsapp_webhooks WHERE id = ? AND client_id = ?),
         statuses AS (SELECT unnest('{pending,delivered,failed}'::text[]) AS status),
         halves AS (
             SELECT 0 AS step, min(low) - 1 AS low, max(high) + 1 AS high, NULL::bigint AS after, NULL::bigint AS before
             FROM statuses CROSS JOIN LATERAL (
                 SELECT min(sequence) AS low, max(sequence) AS high FROM whatsapp_webhook_events e
                 WHERE e.webhook_id = (SELECT id FROM webhook) AND e.status = statuses.status
                     AND e.id >= ? AND (e.id < ? OR e.id < ?)) AS ends
             UNION ALL
             SELECT step + 1,
                 CASE WHEN next.is_before THEN least(next.sequence, high - 1) ELSE low END,
                 CASE WHEN next.is_before THEN high ELSE middle + 1 END,
                 CASE WHEN next.is_before THEN least(next.sequence, high - 1) ELSE after END,
                 CASE WHEN NOT next.is_before THEN next.sequence ELSE before END
             FROM halves
             CROSS JOIN LATERAL (SELECT low + (high - low) / 2 AS middle) AS half
             LEFT JOIN LATERAL (
                 SELECT one.sequence, one.created_at < ? AS is_before FROM statuses CROSS JOIN LATERAL (
                     SELECT sequence, created_at FROM whatsapp_webhook_events e
                     WHERE e.webhook_id = (SELECT id FROM webhook) AND e.status = statuses.status
                         AND e.sequence > middle AND e.id >= ? AND (e.id < ? OR e.id < ?)
                     ORDER BY e.sequence LIMIT 1) AS one
                 ORDER BY one.sequence LIMIT 1) AS next ON true
             WHERE high - low > ?)
         SELECT after, before FROM halves ORDER BY step DESC LIMIT 1",
    )
    .bind::<SqlUuid, _>(webhook_id)
    .bind::<Integer, _>(client_id)
    .bind::<SqlUuid, _>(ids.start)
    .bind::<SqlUuid, _>(ids.end)
    .bind::<SqlUuid, _>(ids.end)
    .bind::<Timestamptz, _>(at)
    .bind::<SqlUuid, _>(ids.start)
    .bind::<SqlUuid, _>(ids.end)
    .bind::<SqlUuid, _>(ids.end)
    .bind::<BigInt, _>(FEW)
    .get_result(conn)
    .await
}
