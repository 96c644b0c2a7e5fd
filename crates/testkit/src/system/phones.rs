//! The people whose phones are the simulator's, and what their WhatsApp knows.

use chrono::{DateTime, Utc};
use reqwest::Client;
use serde::{Deserialize, Serialize};

use super::http;

/// What somebody writes to an account.
#[derive(Debug, Clone, Serialize)]
pub struct Letter<'a> {
    pub to: &'a str,
    /// One after the other, when there are several.
    pub from: &'a [String],
    pub text: &'a str,
    /// The group's name, for a message to a group that the account is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<&'a str>,
    /// The sender's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    pub count: usize,
    /// Messages a second; without it all are sent at once, before the call returns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

/// A message, as the simulator's ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Written {
    pub id: String,
    pub to: String,
    pub sent_at: DateTime<Utc>,
    /// How often it went out.
    pub deliveries: u32,
    pub acked_at: Option<DateTime<Utc>>,
}

/// An account that is linked, as WhatsApp sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Linked {
    pub phone: String,
    /// Whether a device of it is connected.
    pub online: bool,
}

#[derive(Debug, Clone)]
pub struct Phones {
    http: Client,
    url: String,
}

impl Phones {
    pub(super) fn new(http: &Client, port: u16) -> Self {
        Self {
            http: http.clone(),
            url: format!("http://127.0.0.1:{port}"),
        }
    }

    /// Where the simulator answers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A phone scans a QR code.
    pub async fn scan(&self, code: &str, phone: &str) -> anyhow::Result<()> {
        let request = self
            .http
            .post(format!("{}/admin/mock-phone/scan-qr", self.url));
        let request = request.query(&[("phone", phone)]).body(code.to_owned());
        http::answer(request).await?;
        Ok(())
    }

    /// Writes, and returns the messages' ids.
    pub async fn write(&self, letter: &Letter<'_>) -> anyhow::Result<Vec<String>> {
        self.ask(letter).await
    }

    /// Asks for messages in the simulator's own words, and returns their ids.
    pub async fn ask(&self, messages: &impl Serialize) -> anyhow::Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Sent {
            ids: Vec<String>,
        }
        let request = self.http.post(format!("{}/admin/messages", self.url));
        Ok(http::json::<Sent>(request.json(messages)).await?.ids)
    }

    /// Every message ever written.
    pub async fn ledger(&self) -> anyhow::Result<Vec<Written>> {
        http::json(self.http.get(format!("{}/admin/messages", self.url))).await
    }

    /// How many accounts have a device that is connected.
    pub async fn online(&self) -> anyhow::Result<usize> {
        let accounts = self.accounts().await?;
        Ok(accounts.iter().filter(|account| account.online).count())
    }

    /// Every account that is linked.
    pub async fn accounts(&self) -> anyhow::Result<Vec<Linked>> {
        http::json(self.http.get(format!("{}/admin/accounts", self.url))).await
    }
}
