//! How a webhook's deliveries went: counted from the ledger, a bounded number of rows whatever it holds.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use serde::Serialize;
use uuid::Uuid;

use crate::ids;
use crate::statement::Statement;

/// What was seen of a webhook in a span of time that ends now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    /// There were more attempts than are looked at: what is counted, and all rates and percentiles, are
    /// of the first [`SAMPLE`] of each bucket.
    pub sampled: bool,
    pub attempts: Attempts,
    /// The share of the attempts that were a delivery; `None` where there were none.
    pub success_rate: Option<f64>,
    pub latency_ms: Option<Latency>,
    pub events: Events,
    /// Oldest first, without gaps.
    pub series: Vec<Bucket>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Attempts {
    pub total: i64,
    pub delivered: i64,
    pub failed: i64,
    /// Of the failed ones.
    pub by_error_class: BTreeMap<String, i64>,
    /// Under `none`: there was no answer.
    pub by_http_status: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    pub p50: i32,
    pub p95: i32,
    pub p99: i32,
}

/// What waits at this moment, and what was given up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Events {
    /// All of the following, but for the dead letters.
    pub pending: i64,
    /// Claimed by a dispatcher.
    pub in_flight: i64,
    /// To be attempted at some time, which may be now.
    pub due: i64,
    /// By reason.
    pub parked: BTreeMap<String, i64>,
    pub dead_letters: i64,
    /// There are more of some than were counted.
    pub capped: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bucket {
    pub at: DateTime<Utc>,
    pub attempts: i64,
    pub delivered: i64,
    pub failed: i64,
    pub p95_ms: Option<i32>,
}

/// Attempts of one bucket that are looked at.
pub const SAMPLE: i64 = 5_000;
/// Parked events, and dead letters, that are counted.
pub const CAP: i64 = 10_000;
/// Events, of all webhooks, that are looked through for those of one that are not parked.
const LOOKED_THROUGH: i64 = 50_000;
/// The most buckets of a series.
pub const BUCKETS: u32 = 60;
/// What one of a series may cover, in seconds.
const WIDTHS: [u32; 16] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 43_200,
];

/// The width of a bucket that divides the window into no more than [`BUCKETS`].
fn width(window_seconds: u32) -> u32 {
    WIDTHS
        .into_iter()
        .find(|width| window_seconds.div_ceil(*width) <= BUCKETS)
        .unwrap_or_else(|| window_seconds.div_ceil(BUCKETS))
}

impl Stats {
    /// Of the last so many seconds, by PostgreSQL's clock. Takes a few seconds at the most, after which
    /// PostgreSQL ends it with an error.
    pub async fn load(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
        window_seconds: u32,
    ) -> QueryResult<Self> {
        conn.transaction(async |conn| {
            conn.batch_execute("SET LOCAL statement_timeout = '10s'")
                .await?;
            let window = Window::until_now(conn, window_seconds).await?;
            let groups = window.groups(conn, client_id, webhook_id).await?;
            let mut stats = window.stats(groups);
            stats.events = Events::load(conn, client_id, webhook_id).await?;
            Ok(stats)
        })
        .await
    }
}

/// The ends of the buckets: one more than there are of them.
struct Window(Vec<DateTime<Utc>>);

/// Attempts that have something in common: `kind` says what.
#[derive(QueryableByName)]
struct Group {
    /// Which of bucket, class and status are not what the group has in common, as bits.
    #[diesel(sql_type = Integer)]
    kind: i32,
    #[diesel(sql_type = Nullable<Integer>)]
    bucket: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    error_class: Option<String>,
    #[diesel(sql_type = Nullable<Integer>)]
    http_status: Option<i32>,
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = BigInt)]
    delivered: i64,
    #[diesel(sql_type = Nullable<Array<Integer>>)]
    latency: Option<Vec<i32>>,
}

const OF_BUCKET: i32 = 0b011;
const OF_CLASS: i32 = 0b101;
const OF_STATUS: i32 = 0b110;

impl Window {
    async fn until_now(conn: &mut AsyncPgConnection, seconds: u32) -> QueryResult<Self> {
        #[derive(QueryableByName)]
        struct Now {
            #[diesel(sql_type = Timestamptz)]
            now: DateTime<Utc>,
        }
        let Now { now } = Statement::new("SELECT now() AS now")
            .get_result(conn)
            .await?;
        let (from, width) = (now - TimeDelta::seconds(seconds.into()), width(seconds));
        let ends = (0..seconds.div_ceil(width))
            .map(|n| from + TimeDelta::seconds((n * width).into()))
            .chain([now]);
        Ok(Self(ends.collect()))
    }

    /// By ids, which are in time order: each bucket is one range of an index.
    async fn groups(
        &self,
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
    ) -> QueryResult<Vec<Group>> {
        let mut floors: Vec<Uuid> = self.0.iter().map(|at| ids::floor(*at)).collect();
        // The dispatchers' clocks, which the ids are made by, may be a little ahead.
        if let Some(last) = floors.last_mut() {
            *last = ids::floor(self.to() + TimeDelta::minutes(1));
        }
        Statement::new(
            "WITH buckets AS MATERIALIZED (
                 SELECT * FROM unnest(?, ?) WITH ORDINALITY AS t (first, behind, bucket)),
             seen AS MATERIALIZED (
                 SELECT (buckets.bucket - 1)::integer AS bucket, a.* FROM buckets, LATERAL (
                     SELECT duration_ms, http_status, error_class FROM whatsapp_delivery_attempts
                     WHERE webhook_id = ? AND client_id = ?
                       AND id >= buckets.first AND id < buckets.behind
                     ORDER BY id LIMIT ?) a)
             SELECT grouping(bucket, error_class, http_status) AS kind, bucket, error_class, http_status,
                 count(*) AS count, count(*) FILTER (WHERE error_class IS NULL) AS delivered,
                 percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY duration_ms) AS latency
             FROM seen GROUP BY GROUPING SETS ((), (bucket), (error_class), (http_status))",
        )
        .bind::<Array<SqlUuid>, _>(floors[..floors.len() - 1].to_vec())
        .bind::<Array<SqlUuid>, _>(floors[1..].to_vec())
        .bind::<SqlUuid, _>(webhook_id)
        .bind::<Integer, _>(client_id)
        .bind::<BigInt, _>(SAMPLE)
        .load(conn)
        .await
    }

    fn to(&self) -> DateTime<Utc> {
        self.0[self.0.len() - 1]
    }

    fn stats(&self, groups: Vec<Group>) -> Stats {
        let empty = |at: &DateTime<Utc>| Bucket {
            at: *at,
            attempts: 0,
            delivered: 0,
            failed: 0,
            p95_ms: None,
        };
        let mut stats = Stats {
            from: self.0[0],
            to: self.to(),
            sampled: false,
            attempts: Attempts::default(),
            success_rate: None,
            latency_ms: None,
            events: Events::default(),
            series: self.0[..self.0.len() - 1].iter().map(empty).collect(),
        };
        for group in groups {
            stats.add(group);
        }
        stats
    }
}

impl Stats {
    fn add(&mut self, group: Group) {
        let failed = group.count - group.delivered;
        let latency = group.latency.as_deref();
        match (group.kind, group.bucket) {
            (OF_BUCKET, Some(bucket)) => {
                self.sampled |= group.count == SAMPLE;
                let bucket = &mut self.series[bucket as usize];
                bucket.attempts = group.count;
                bucket.delivered = group.delivered;
                bucket.failed = failed;
                bucket.p95_ms = latency.map(|latency| latency[1]);
            }
            (OF_CLASS, _) => {
                let class = group.error_class.map(|class| (class, group.count));
                self.attempts.by_error_class.extend(class);
            }
            (OF_STATUS, _) => {
                let status = group.http_status.map(|status| status.to_string());
                let status = status.unwrap_or_else(|| "none".to_owned());
                self.attempts.by_http_status.insert(status, group.count);
            }
            _ => {
                self.attempts.total = group.count;
                self.attempts.delivered = group.delivered;
                self.attempts.failed = failed;
                self.success_rate =
                    (group.count > 0).then(|| group.delivered as f64 / group.count as f64);
                self.latency_ms = latency.map(|latency| Latency {
                    p50: latency[0],
                    p95: latency[1],
                    p99: latency[2],
                });
            }
        }
    }
}

impl Events {
    async fn load(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
    ) -> QueryResult<Self> {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = Text)]
            what: String,
            #[diesel(sql_type = BigInt)]
            count: i64,
        }
        let counts: Vec<Count> = Statement::new(
            "WITH parked AS MATERIALIZED (
                 SELECT coalesce(parked, '') AS reason FROM whatsapp_webhook_events
                 WHERE webhook_id = ? AND client_id = ? AND status = 'pending' AND next_retry_at IS NULL
                 LIMIT ?),
             timed AS MATERIALIZED (
                 SELECT webhook_id, client_id, claim_token FROM whatsapp_webhook_events
                 WHERE status = 'pending' AND next_retry_at IS NOT NULL ORDER BY next_retry_at LIMIT ?),
             letters AS MATERIALIZED (
                 SELECT FROM whatsapp_dead_letters WHERE webhook_id = ? AND client_id = ? LIMIT ?)
             SELECT 'parked ' || reason AS what, count(*) AS count FROM parked GROUP BY reason
             UNION ALL SELECT 'in flight', count(*) FROM timed
                 WHERE webhook_id = ? AND client_id = ? AND claim_token IS NOT NULL
             UNION ALL SELECT 'due', count(*) FROM timed
                 WHERE webhook_id = ? AND client_id = ? AND claim_token IS NULL
             UNION ALL SELECT 'timed', count(*) FROM timed
             UNION ALL SELECT 'letters', count(*) FROM letters",
        )
        .bind::<SqlUuid, _>(webhook_id)
        .bind::<Integer, _>(client_id)
        .bind::<BigInt, _>(CAP)
        .bind::<BigInt, _>(LOOKED_THROUGH)
        .bind::<SqlUuid, _>(webhook_id)
        .bind::<Integer, _>(client_id)
        .bind::<BigInt, _>(CAP)
        .bind::<SqlUuid, _>(webhook_id)
        .bind::<Integer, _>(client_id)
        .bind::<SqlUuid, _>(webhook_id)
        .bind::<Integer, _>(client_id)
        .load(conn)
        .await?;
        let mut events = Self::default();
        for Count { what, count } in counts {
            match what.as_str() {
                "in flight" => events.in_flight = count,
                "due" => events.due = count,
                "timed" => events.capped |= count == LOOKED_THROUGH,
                "letters" => events.dead_letters = count,
                parked => {
                    let reason = parked.trim_start_matches("parked ").to_owned();
                    events.parked.insert(reason, count);
                }
            }
        }
        let parked: i64 = events.parked.values().sum();
        events.capped |= parked == CAP || events.dead_letters == CAP;
        events.pending = events.in_flight + events.due + parked;
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_at_most_sixty_buckets_of_a_sensible_width() {
        for (window, expected) in [
            (60, 1),
            (900, 15),
            (3600, 60),
            (3660, 120),
            (86_400, 1800),
            (7 * 86_400, 10_800),
            (30 * 86_400, 43_200),
        ] {
            let width = width(window);
            assert_eq!(width, expected, "{window}");
            assert!(window.div_ceil(width) <= BUCKETS);
        }
        for window in 1..=30 * 86_400 / 60 {
            let window: u32 = window * 60;
            assert!(window.div_ceil(width(window)) <= BUCKETS);
        }
    }
}
