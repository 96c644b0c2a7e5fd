//! What arrived at the receiver.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::http;

/// A request, as the receiver saw it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Arrival {
    pub sequence: u64,
    pub path: String,
    /// The header `webhook-id`.
    pub webhook_id: Option<String>,
    /// The header `X-Webhook-Event-ID`.
    pub event_id: Option<String>,
    pub attempt: Option<u32>,
    /// `None` while the receiver knows no secret.
    pub signature_ok: Option<bool>,
    /// Why its body is not what the published schema promises.
    pub schema_error: Option<String>,
    /// When the request's first bytes were there.
    pub received_at: DateTime<Utc>,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Arrival {
    /// A field of the body; null where there is none.
    pub fn field(&self, name: &str) -> Value {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body[name].clone()
    }
}

#[derive(Debug, Clone)]
pub struct Postbox {
    http: Client,
    url: String,
}

impl Postbox {
    pub(super) fn new(http: &Client, port: u16) -> Self {
        Self {
            http: http.clone(),
            url: format!("http://127.0.0.1:{port}"),
        }
    }

    /// The URL of a path, which starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// From now on, signatures are checked with this secret, among others.
    pub async fn tell_secret(&self, webhook: Uuid, secret: &str) -> anyhow::Result<()> {
        let request = self.http.post(self.url("/_control/secrets"));
        http::answer(request.json(&json!({ "webhook_id": webhook, "secret": secret }))).await?;
        Ok(())
    }

    /// What came after that sequence number; 0 for all.
    pub async fn since(&self, sequence: u64) -> anyhow::Result<Vec<Arrival>> {
        let request = self.http.get(self.url("/_control/received"));
        http::json(request.query(&[("since", sequence)])).await
    }

    /// From now on, requests for the path are answered so late.
    pub async fn delay(&self, path: &str, delay: Duration) -> anyhow::Result<()> {
        let behaviour = json!({ "path": path, "delay_ms": delay.as_millis() as u64 });
        let request = self.http.post(self.url("/_control/behaviour"));
        http::answer(request.json(&behaviour)).await?;
        Ok(())
    }
}
