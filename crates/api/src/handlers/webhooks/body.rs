//! A webhook as its client sees it: without its secrets.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::keyring::{Keyring, SealError};
use domain::webhook::{self, Webhook};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::openapi::values;

/// Stands for the value of a header, whatever its length.
const MASKED: &str = "********";

#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(crate) struct WebhookBody {
    id: Uuid,
    client_id: i32,
    #[schema(schema_with = values::digits)]
    phone_number: String,
    webhook_url: String,
    is_active: bool,
    /// `failed`: five attempts in a row have failed, and events wait until a probe is answered.
    #[schema(schema_with = values::webhook_status)]
    status: String,
    /// In a row.
    failure_count: i32,
    /// Attempts in all, until an event is given up.
    max_retries: i32,
    #[schema(required = true)]
    last_error: Option<String>,
    #[schema(required = true)]
    last_success_at: Option<DateTime<Utc>>,
    #[schema(required = true)]
    last_attempt_at: Option<DateTime<Utc>>,
    event_types: Vec<String>,
    /// The values are masked.
    #[schema(value_type = BTreeMap<String, String>)]
    custom_headers: BTreeMap<String, &'static str>,
    #[schema(required = true)]
    rate_limit_per_second: Option<i32>,
    max_in_flight: i32,
    #[schema(required = true)]
    batch: Option<BatchBody>,
    ordered: bool,
    allowed_ip_ranges: Vec<String>,
    inline_media_bytes: i32,
    #[schema(value_type = Object)]
    metadata: Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BatchOfWebhook)]
struct BatchBody {
    max_events: i32,
    max_wait_ms: i32,
}

impl WebhookBody {
    /// Fails when the headers' names cannot be read: they are sealed with the values.
    pub(super) fn of(keyring: &Keyring, webhook: Webhook) -> Result<Self, SealError> {
        let headers = match &webhook.custom_headers {
            Some(sealed) => webhook::open_headers(keyring, webhook.id, sealed)?,
            None => webhook::Headers::new(),
        };
        let batch = webhook.batch_max_events.zip(webhook.batch_max_wait_ms);
        Ok(Self {
            id: webhook.id,
            client_id: webhook.client_id,
            phone_number: webhook.phone_number,
            webhook_url: webhook.webhook_url,
            is_active: webhook.is_active,
            status: webhook.status,
            failure_count: webhook.failure_count,
            max_retries: webhook.max_retries,
            last_error: webhook.last_error,
            last_success_at: webhook.last_success_at,
            last_attempt_at: webhook.last_attempt_at,
            event_types: webhook.event_types,
            custom_headers: headers.into_keys().map(|name| (name, MASKED)).collect(),
            rate_limit_per_second: webhook.rate_limit_per_second,
            max_in_flight: webhook.max_in_flight,
            batch: batch.map(|(max_events, max_wait_ms)| BatchBody {
                max_events,
                max_wait_ms,
            }),
            ordered: webhook.ordered,
            allowed_ip_ranges: webhook.allowed_ip_ranges,
            inline_media_bytes: webhook.inline_media_bytes,
            metadata: webhook.metadata,
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
        })
    }
}
