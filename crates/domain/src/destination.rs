//! How and where a webhook's events are delivered: what a dispatcher keeps of it from one event to the
//! next, until [`Claimed::webhook_version`](crate::claim::Claimed::webhook_version) is another one.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, Binary, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::statement::Statement;

#[derive(Debug, Clone, QueryableByName)]
pub struct Destination {
    #[diesel(sql_type = SqlUuid)]
    pub webhook_id: Uuid,
    #[diesel(sql_type = Integer)]
    pub client_id: i32,
    #[diesel(sql_type = Timestamptz)]
    pub version: DateTime<Utc>,
    #[diesel(sql_type = Text)]
    pub webhook_url: String,
    /// Attempts in all.
    #[diesel(sql_type = Integer)]
    pub max_retries: i32,
    /// Sealed; see [`crate::webhook::open_secret`].
    #[diesel(sql_type = Binary)]
    pub secret: Vec<u8>,
    /// Sealed; present while a rotation overlaps.
    #[diesel(sql_type = Nullable<Binary>)]
    pub previous_secret: Option<Vec<u8>>,
    /// Seconds for which the previous secret signs too.
    #[diesel(sql_type = Nullable<Double>)]
    pub previous_secret_seconds: Option<f64>,
    /// Sealed; see [`crate::webhook::open_headers`].
    #[diesel(sql_type = Nullable<Binary>)]
    pub custom_headers: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub rate_limit_per_second: Option<i32>,
    /// Of the client, over all of its webhooks.
    #[diesel(sql_type = Nullable<Integer>)]
    pub client_rate_limit_per_second: Option<i32>,
    #[diesel(sql_type = Integer)]
    pub max_in_flight: i32,
    #[diesel(sql_type = Nullable<Integer>)]
    pub batch_max_events: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub batch_max_wait_ms: Option<i32>,
    /// CIDRs that the receiver's address must fall in, if there are any.
    #[diesel(sql_type = Array<Text>)]
    pub allowed_ip_ranges: Vec<String>,
    /// Of the largest file that goes into the delivery itself; 0 is none.
    #[diesel(sql_type = Integer)]
    pub inline_media_bytes: i32,
}

impl Destination {
    /// Those of these webhooks, also of deleted ones.
    pub async fn load(conn: &mut AsyncPgConnection, webhooks: &[Uuid]) -> QueryResult<Vec<Self>> {
        Statement::new(
            "SELECT w.id AS webhook_id, w.client_id, w.updated_at AS version, w.webhook_url, w.max_retries,
                 w.secret, CASE WHEN w.previous_secret_expires_at > now() THEN w.previous_secret END
                     AS previous_secret,
                 extract(epoch FROM w.previous_secret_expires_at - now())::float8 AS previous_secret_seconds,
                 w.custom_headers, w.rate_limit_per_second,
                 c.rate_limit_per_second AS client_rate_limit_per_second, w.max_in_flight,
                 w.batch_max_events, w.batch_max_wait_ms, w.allowed_ip_ranges, w.inline_media_bytes
             FROM whatsapp_webhooks w JOIN clients c ON c.id = w.client_id
             WHERE w.id = ANY(?)",
        )
        .bind::<Array<SqlUuid>, _>(webhooks)
        .load(conn)
        .await
    }
}
