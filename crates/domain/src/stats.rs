//! How a webhook's deliveries went: counted from the ledger, a bounded number of rows whatever it holds.

mod waiting;
mod window;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use self::window::{Group, OF_BUCKET, OF_CLASS, OF_STATUS, Window};

/// What was seen of a webhook in a span of time that ends now.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Stats {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    /// There were more attempts than are looked at: what is counted, and all rates and percentiles, are
    /// of the first 5,000 of each bucket.
    pub sampled: bool,
    pub attempts: Attempts,
    /// The share of the attempts that were a delivery; null where there were none.
    #[schema(required = true)]
    pub success_rate: Option<f64>,
    #[schema(required = true)]
    pub latency_ms: Option<Latency>,
    pub events: Events,
    /// Oldest first, without gaps.
    pub series: Vec<Bucket>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = StatsAttempts)]
pub struct Attempts {
    pub total: i64,
    pub delivered: i64,
    pub failed: i64,
    /// Of the failed ones.
    pub by_error_class: BTreeMap<String, i64>,
    /// Under `none`: there was no answer.
    pub by_http_status: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = StatsLatency)]
pub struct Latency {
    pub p50: i32,
    pub p95: i32,
    pub p99: i32,
}

/// What waits at this moment, and what was given up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = StatsEvents)]
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = StatsBucket)]
pub struct Bucket {
    pub at: DateTime<Utc>,
    pub attempts: i64,
    pub delivered: i64,
    pub failed: i64,
    #[schema(required = true)]
    pub p95_ms: Option<i32>,
}

/// Attempts of one bucket that are looked at.
pub const SAMPLE: i64 = 5_000;

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
