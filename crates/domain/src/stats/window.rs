//! The attempts of a span of time, bucket by bucket.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{Attempts, Bucket, Events, SAMPLE, Stats};
use crate::ids;
use crate::statement::Statement;

/// The most buckets of a series.
const BUCKETS: u32 = 60;
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

/// The ends of the buckets: one more than there are of them.
pub(super) struct Window(Vec<DateTime<Utc>>);

/// Attempts that have something in common: `kind` says what.
#[derive(QueryableByName)]
pub(super) struct Group {
    /// Which of bucket, class and status are not what the group has in common, as bits.
    #[diesel(sql_type = Integer)]
    pub(super) kind: i32,
    #[diesel(sql_type = Nullable<Integer>)]
    pub(super) bucket: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    pub(super) error_class: Option<String>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub(super) http_status: Option<i32>,
    #[diesel(sql_type = BigInt)]
    pub(super) count: i64,
    #[diesel(sql_type = BigInt)]
    pub(super) delivered: i64,
    #[diesel(sql_type = Nullable<Array<Integer>>)]
    pub(super) latency: Option<Vec<i32>>,
}

pub(super) const OF_BUCKET: i32 = 0b011;
pub(super) const OF_CLASS: i32 = 0b101;
pub(super) const OF_STATUS: i32 = 0b110;

impl Window {
    pub(super) async fn until_now(conn: &mut AsyncPgConnection, seconds: u32) -> QueryResult<Self> {
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
    pub(super) async fn groups(
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

    pub(super) fn stats(&self, groups: Vec<Group>) -> Stats {
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
