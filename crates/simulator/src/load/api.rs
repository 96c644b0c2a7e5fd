//! The gateway's API, as a customer uses it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::phones::Phones;

/// How long one number may take to be linked.
const LINKING: Duration = Duration::from_secs(120);
/// Between two looks at something that takes its time.
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Api {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// A number that was linked, and its webhook.
pub(super) struct Number {
    pub(super) phone: String,
    user: Uuid,
    webhook: String,
}

impl Api {
    pub(super) fn new(http: &reqwest::Client, url: &str, token: &str) -> Self {
        Self {
            http: http.clone(),
            url: url.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, String)> {
        let url = format!("{}{path}", self.url);
        let mut call = self
            .http
            .request(method, &url)
            .bearer_auth(&self.token)
            .header("accept", "text/plain, application/json");
        if let Some(body) = body {
            call = call.json(body);
        }
        let answer = call.send().await.with_context(|| url.clone())?;
        Ok((answer.status(), answer.text().await.context(url)?))
    }

    /// Links a number as people do it, and registers its webhook.
    pub(super) async fn link(&self, phones: &Phones, phone: String, url: &str) -> Result<Number> {
        let user = Uuid::new_v4();
        let linked = tokio::time::timeout(LINKING, self.connect(phones, user, &phone)).await;
        linked
            .with_context(|| format!("{phone} was not linked in time"))?
            .with_context(|| format!("{phone} was not linked"))?;
        let body = json!({ "phone_number": phone, "webhook_url": url });
        let path = "/api/webhooks/register";
        let (status, answer) = self.call(Method::POST, path, Some(&body)).await?;
        ensure!(status.is_success(), "{path}: {status} {answer}");
        let answer: Value = serde_json::from_str(&answer)?;
        let webhook = answer["webhook"]["id"].as_str();
        Ok(Number {
            webhook: webhook.context("a webhook without id")?.to_owned(),
            phone,
            user,
        })
    }

    async fn connect(&self, phones: &Phones, user: Uuid, phone: &str) -> Result<()> {
        let body = json!({ "user_id": user, "phone_number": phone });
        let path = "/api/whatsapp/connect";
        loop {
            let (status, answer) = self.call(Method::POST, path, Some(&body)).await?;
            match status {
                status if status.is_success() => break,
                // Too much at a time, or no gateway yet.
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                status => bail!("{path}: {status} {answer}"),
            }
        }
        let started = Instant::now();
        let mut scanned = None;
        loop {
            if self.status(user).await? == "connected" {
                tracing::debug!(phone, took = ?started.elapsed(), "linked");
                return Ok(());
            }
            let path = format!("/api/whatsapp/qr/{user}");
            let (status, code) = self.call(Method::GET, &path, None).await?;
            if status.is_success() && scanned.as_ref() != Some(&code) {
                // A code that has just been replaced is refused; the next one is not.
                match phones.scan(&code, phone).await {
                    Ok(()) => scanned = Some(code),
                    Err(error) => tracing::debug!(phone, "not scanned: {error:#}"),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn status(&self, user: Uuid) -> Result<String> {
        let path = format!("/api/whatsapp/status/{user}");
        let (status, answer) = self.call(Method::GET, &path, None).await?;
        ensure!(status.is_success(), "{path}: {status} {answer}");
        let answer: Value = serde_json::from_str(&answer)?;
        let status = answer["status"].as_str();
        let status = status.context("a status without status")?;
        ensure!(status != "logged_out", "logged out: {answer}");
        Ok(status.to_owned())
    }

    /// Takes webhook and link away.
    pub(super) async fn forget(&self, number: &Number) -> Result<()> {
        let path = format!("/api/webhooks/{}", number.webhook);
        let (status, answer) = self.call(Method::DELETE, &path, None).await?;
        ensure!(status.is_success(), "{path}: {status} {answer}");
        let path = "/api/whatsapp/logout";
        let body = json!({ "user_id": number.user });
        let (status, answer) = self.call(Method::POST, path, Some(&body)).await?;
        ensure!(status.is_success(), "{path}: {status} {answer}");
        Ok(())
    }
}
