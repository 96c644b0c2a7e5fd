//! Recado's API, as a client of Recado's calls it.

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::http;

/// A registered webhook, and what its receiver has to know.
#[derive(Debug, Clone)]
pub struct Registered {
    pub id: Uuid,
    pub secret: String,
}

#[derive(Debug, Clone)]
pub struct Api {
    http: Client,
    url: String,
    token: String,
}

impl Api {
    pub(super) fn new(http: &Client, port: u16, token: &str) -> Self {
        Self {
            http: http.clone(),
            url: format!("http://127.0.0.1:{port}"),
            token: token.to_owned(),
        }
    }

    /// Where it answers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for a session. Returns the session's id once there is a code to scan.
    pub async fn connect(&self, user: Uuid, phone: &str) -> anyhow::Result<Uuid> {
        #[derive(Deserialize)]
        struct Connecting {
            session_id: Uuid,
        }
        let request = json!({ "user_id": user, "phone_number": phone });
        let request = self
            .call(Method::POST, "/api/whatsapp/connect")
            .json(&request);
        Ok(http::json::<Connecting>(request).await?.session_id)
    }

    /// What is in the QR code now.
    pub async fn qr_code(&self, user: Uuid) -> anyhow::Result<String> {
        let request = self.call(Method::GET, &format!("/api/whatsapp/qr/{user}"));
        let answer = http::answer(request.header("Accept", "text/plain")).await?;
        Ok(answer.text().await?)
    }

    /// `connected`, `reconnecting`, `disconnected` or `logged_out`.
    pub async fn status(&self, user: Uuid) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Standing {
            status: String,
        }
        let request = self.call(Method::GET, &format!("/api/whatsapp/status/{user}"));
        Ok(http::json::<Standing>(request).await?.status)
    }

    /// Registers a new webhook for everything about messages.
    pub async fn register(&self, phone: &str, url: &str) -> anyhow::Result<Registered> {
        #[derive(Deserialize)]
        struct Answer {
            webhook: Webhook,
            secret: String,
        }
        #[derive(Deserialize)]
        struct Webhook {
            id: Uuid,
        }
        let request = json!({
            "phone_number": phone, "webhook_url": url, "max_retries": 10, "event_types": ["message.*"],
        });
        let request = self
            .call(Method::POST, "/api/webhooks/register")
            .json(&request);
        let Answer { webhook, secret } = http::json(request).await?;
        Ok(Registered {
            id: webhook.id,
            secret,
        })
    }

    /// An event with its attempts, as the API shows it; `None` when there is no such event.
    pub async fn event(&self, id: Uuid) -> anyhow::Result<Option<Value>> {
        let request = self.call(Method::GET, &format!("/api/webhooks/events/{id}"));
        let response = request.send().await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(response.error_for_status()?.json().await?))
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        request.bearer_auth(&self.token)
    }
}
