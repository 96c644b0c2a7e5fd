//! Spans on their way to an OpenTelemetry collector. They wait in the SDK's queue, beyond which they are dropped,
//! and a thread of its own sends them: nothing of the service waits for it.

mod client;
mod exporter;

use std::time::Duration;

use opentelemetry::Key;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Status, TracerProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::Url;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{ConfigError, Env};
use exporter::Exporter;

pub(super) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACEPARENT: &str = "traceparent";
/// What the last spans may take at the end of the process.
const LAST: Duration = Duration::from_secs(3);

/// Where a collector takes traces, by `OTEL_EXPORTER_OTLP_ENDPOINT`; `None` when there is none.
pub(super) fn endpoint(env: &Env) -> Result<Option<Url>, ConfigError> {
    let Some(text) = env.optional::<String>(ENDPOINT)? else {
        return Ok(None);
    };
    let wrong = || ConfigError::new(ENDPOINT, "must be http://host[:port][/path], or https://");
    let mut url = Url::parse(&text).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong());
    }
    let mut path = url.path_segments_mut().map_err(|()| wrong())?;
    path.pop_if_empty().extend(["v1", "traces"]);
    drop(path);
    Ok(Some(url))
}

/// What makes the spans. The process's last act is to end it.
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    pub(super) fn to(url: &Url, service: &'static str) -> anyhow::Result<Self> {
        let provider = SdkTracerProvider::builder()
            .with_resource(resource(service))
            .with_batch_exporter(Exporter::to(url)?);
        Ok(Self(provider.build()))
    }

    /// Of the crate's spans alone. Libraries make spans too, of what they please: the one that speaks to
    /// WhatsApp, and the one that sends these spans.
    pub(super) fn layer<S>(&self, of: &'static str) -> impl Layer<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let wanted = filter_fn(move |metadata| metadata.is_span() && is_of(metadata, of));
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("recado"))
            .with_location(false)
            .with_threads(false)
            .with_filter(wanted.with_max_level_hint(LevelFilter::DEBUG))
    }

    /// Sends what is left, for as long as that may take.
    pub(crate) fn end(self) {
        // The spans that were too late were told of, or are lost like others.
        let _ = self.0.shutdown_with_timeout(LAST);
    }
}

fn is_of(metadata: &Metadata<'_>, krate: &str) -> bool {
    let module = metadata.target().strip_prefix(krate);
    module.is_some_and(|module| module.is_empty() || module.starts_with("::"))
}

/// What `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say; the service's own name, if they don't.
fn resource(service: &'static str) -> Resource {
    let said = Resource::builder().build();
    let name = said.get(&Key::from_static_str("service.name"));
    match name.filter(|name| !name.as_str().starts_with("unknown_service")) {
        Some(_) => said,
        None => Resource::builder().with_service_name(service).build(),
    }
}

/// Puts the span of a request into its caller's trace, which a `traceparent` header tells of.
pub fn continue_trace(span: &Span, traceparent: &str) {
    let caller = TraceContextPropagator::new().extract(&Caller(traceparent));
    // Err: nothing is traced.
    let _ = span.set_parent(caller);
}

struct Caller<'a>(&'a str);

impl Extractor for Caller<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// Says in the trace, and nowhere else, what a request was answered.
pub fn note_status(span: &Span, status: u16) {
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set_status(Status::error(""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<Url>, ConfigError> {
        endpoint(&Env::from_pairs([(ENDPOINT, value)]).unwrap())
    }

    #[test]
    fn traces_go_below_the_collectors_address() {
        for (value, url) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("https://collector/", "https://collector/v1/traces"),
            ("http://c/otel/?key=1", "http://c/otel/v1/traces?key=1"),
        ] {
            assert_eq!(read(value).unwrap().unwrap().as_str(), url);
        }
        assert!(read("").unwrap().is_none());
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_it() {
        for value in ["collector:4318", "hunter2", "ftp://hunter2@h", "http://"] {
            let error = read(value).unwrap_err();
            assert_eq!(error.variable, ENDPOINT);
            assert!(!error.problem.contains("hunter2"), "{error}");
        }
    }
}
