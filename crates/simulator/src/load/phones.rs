//! The simulator's control API.

use anyhow::{Context as _, Result, ensure};
use chrono::DateTime;
use serde::Deserialize;
use serde_json::{Value, json};

/// Contacts are the same ones for every number.
const FIRST_CONTACT: u64 = 491_700_000_000;

pub(super) struct Phones {
    http: reqwest::Client,
    url: String,
}

/// What became of a message at the server, in unix milliseconds.
pub(super) struct Written {
    pub(super) sent_at: i64,
    pub(super) acked_at: Option<i64>,
}

#[derive(Deserialize)]
struct Line {
    id: String,
    sent_at: String,
    acked_at: Option<String>,
}

fn milliseconds(text: &str) -> Result<i64> {
    let time = DateTime::parse_from_rfc3339(text);
    Ok(time.with_context(|| text.to_owned())?.timestamp_millis())
}

impl Phones {
    pub(super) fn new(http: &reqwest::Client, url: &str) -> Self {
        Self {
            http: http.clone(),
            url: url.trim_end_matches('/').to_owned(),
        }
    }

    async fn post(&self, path: &str, body: String) -> Result<Value> {
        let url = format!("{}{path}", self.url);
        let answer = self.http.post(&url).body(body).send().await;
        let answer = answer.with_context(|| url.clone())?;
        let status = answer.status();
        let text = answer.text().await.with_context(|| url.clone())?;
        ensure!(status.is_success(), "{url}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    pub(super) async fn scan(&self, code: &str, phone: &str) -> Result<()> {
        let path = format!("/admin/mock-phone/scan-qr?phone={phone}");
        self.post(&path, code.to_owned()).await.map(drop)
    }

    /// So many contacts write to the number in turn, at a rate. The messages' ids.
    pub(super) async fn write(
        &self,
        to: &str,
        contacts: u32,
        count: usize,
        rate: f64,
    ) -> Result<Vec<String>> {
        let contacts = (0..u64::from(contacts)).map(|turn| (FIRST_CONTACT + turn).to_string());
        let from: Vec<String> = contacts.collect();
        let letter =
            json!({ "to": to, "from": from, "text": "load", "count": count, "rate": rate });
        let answer = self.post("/admin/messages", letter.to_string()).await?;
        Ok(serde_json::from_value(answer["ids"].clone())?)
    }

    /// The messages to that number, by their ids.
    pub(super) async fn ledger(&self, to: &str) -> Result<Vec<(String, Written)>> {
        let url = format!("{}/admin/messages?to={to}", self.url);
        let answer = self.http.get(&url).send().await?.error_for_status()?;
        let lines: Vec<Line> = serde_json::from_str(&answer.text().await?)?;
        let written = lines.into_iter().map(|line| {
            let acked_at = line.acked_at.as_deref().map(milliseconds).transpose()?;
            let sent_at = milliseconds(&line.sent_at)?;
            Ok((line.id, Written { sent_at, acked_at }))
        });
        written.collect()
    }
}
