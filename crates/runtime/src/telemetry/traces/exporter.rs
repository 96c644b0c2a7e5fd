use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::Value;
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use reqwest::Url;

use super::client::Client;
use crate::telemetry::mask::mask;

/// A collector that is away is told of once in this time.
const QUIET: Duration = Duration::from_secs(60);

/// Sends spans without phone numbers, and says when it can't.
#[derive(Debug)]
pub(super) struct Exporter {
    otlp: opentelemetry_otlp::SpanExporter,
    losses: Mutex<Losses>,
}

#[derive(Debug, Default)]
struct Losses {
    spans: usize,
    told: Option<Instant>,
}

impl Exporter {
    pub(super) fn to(url: &Url) -> anyhow::Result<Self> {
        let otlp = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new()?)
            .with_endpoint(url.as_str())
            .build()?;
        Ok(Self {
            otlp,
            losses: Mutex::default(),
        })
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, mut spans: Vec<SpanData>) -> OTelSdkResult {
        let count = spans.len();
        spans.iter_mut().for_each(without_numbers);
        let result = self.otlp.export(spans).await;
        if let Err(error) = &result {
            let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
            losses.add(count, error);
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

impl Losses {
    fn add(&mut self, spans: usize, error: &impl std::fmt::Display) {
        self.spans += spans;
        if self.told.is_none_or(|told| told.elapsed() >= QUIET) {
            tracing::warn!(spans = self.spans, %error, "spans could not be sent and are lost");
            *self = Self {
                spans: 0,
                told: Some(Instant::now()),
            };
        }
    }
}

/// What a span holds comes from a request at times, such as its id.
fn without_numbers(span: &mut SpanData) {
    for attribute in &mut span.attributes {
        if let Value::String(text) = &attribute.value {
            attribute.value = mask(text.as_str()).into_owned().into();
        }
    }
}
