//! A, what the dispatcher is measured against: the same requests from the same kind of client to the same
//! receiver, and nothing besides. Nothing is read from anywhere, and nothing is written down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{SubsecRound, Utc};
use clap::Args;
use domain::payload::{Payload, rfc3339};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, redirect};
use serde_json::value::RawValue;
use sha2::Sha256;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::seed::{CONTACT, CONTENT, METADATA};

const TIMEOUT: Duration = Duration::from_secs(10);
const KEY: &[u8; 32] = b"thirty-two bytes that are a key.";

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Where to; the webhook's number is added
    #[arg(long)]
    url: String,
    #[arg(long, default_value_t = 50)]
    webhooks: u32,
    /// Requests in all
    #[arg(long)]
    count: u32,
    /// Requests in flight
    #[arg(long, default_value_t = 256)]
    concurrency: u32,
}

/// Sends all of it. An error when anything failed, since the receiver saw less then.
pub(crate) async fn send(load: &Load) -> anyhow::Result<()> {
    let all = Arc::new(Requests::new(load)?);
    let mut senders = JoinSet::new();
    for _ in 0..load.concurrency {
        senders.spawn(Arc::clone(&all).send());
    }
    let mut failed = 0;
    while let Some(ended) = senders.join_next().await {
        failed += ended?;
    }
    ensure!(failed == 0, "{failed} of {} requests failed", load.count);
    Ok(())
}

struct Requests {
    client: Client,
    urls: Vec<String>,
    metadata: Box<RawValue>,
    next: AtomicU32,
    count: u32,
}

impl Requests {
    fn new(load: &Load) -> anyhow::Result<Self> {
        runtime::tls::install_provider();
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(TIMEOUT)
            .build();
        Ok(Self {
            client: client.context("an HTTP client")?,
            urls: (0..load.webhooks)
                .map(|number| format!("{}{number}", load.url))
                .collect(),
            metadata: RawValue::from_string(METADATA.to_owned())?,
            next: AtomicU32::new(0),
            count: load.count,
        })
    }

    /// One request after the other, until all are taken; answers how many failed.
    async fn send(self: Arc<Self>) -> u32 {
        let mut failed = 0;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                return failed;
            }
            if let Err(error) = self.send_one(number).await {
                eprintln!("{error:#}");
                failed += 1;
            }
        }
    }

    async fn send_one(&self, number: u32) -> anyhow::Result<()> {
        let (id, now) = (Uuid::from_u128(u128::from(number) + 1), Utc::now());
        let body = self.body(id)?;
        let (name, seconds) = (id.to_string(), now.timestamp());
        let url = &self.urls[number as usize % self.urls.len()];
        let request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("x-webhook-event-id", &name)
            .header("x-webhook-timestamp", rfc3339(now))
            .header("x-webhook-attempt", 1)
            .header("webhook-id", &name)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature(&name, seconds, &body))
            .body(body);
        let answer = request.send().await?.error_for_status()?;
        answer.bytes().await?;
        Ok(())
    }

    fn body(&self, id: Uuid) -> serde_json::Result<Vec<u8>> {
        let message_id = format!("3EB0{:020X}", id.as_u128());
        serde_json::to_vec(&Payload {
            client_id: 1,
            message_id: &message_id,
            from: CONTACT,
            to: "5511988880000",
            timestamp: Utc::now().trunc_subsecs(0),
            message_type: "text",
            content: CONTENT,
            metadata: &self.metadata,
            event: "message",
            event_id: id,
            connection_id: Some(id),
        })
    }
}

fn signature(id: &str, seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Load {
        pub(crate) fn small(url: String, count: u32) -> Self {
            Self {
                url,
                webhooks: 3,
                count,
                concurrency: 4,
            }
        }
    }

    #[test]
    fn its_bodies_are_as_large_as_those_of_deliveries() {
        let load = Load::small(String::new(), 1);
        let body = Requests::new(&load).unwrap().body(Uuid::from_u128(1));
        let length = body.unwrap().len();
        assert!((300..330).contains(&length), "{length}");
    }
}
