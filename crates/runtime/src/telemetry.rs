//! Logs, traces and metrics of the process. Logs go to stderr: stdout is for what a command answers.

mod format;
mod mask;
mod traces;

use std::io::{self, IsTerminal};
use std::panic;
use std::str::FromStr;

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use reqwest::Url;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{ConfigError, Env, Mode};
use format::{Fields, WithService};
pub(crate) use traces::Traces;
pub use traces::{continue_trace, note_status};

/// At debug it tells of every parameter of every statement, as bytes.
const PARAMETERS: &str = "tokio_postgres::query=off";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err("must be json or text"),
        }
    }
}

/// What is logged and traced, and how.
#[derive(Debug)]
pub struct TelemetryConfig {
    pub format: LogFormat,
    pub filter: EnvFilter,
    /// Whether logs show phone numbers, and what is written to PostgreSQL.
    pub payloads: bool,
    /// Where spans are sent.
    pub traces: Option<Url>,
}

impl TelemetryConfig {
    /// Reads `LOG_FORMAT`, `RUST_LOG`, `LOG_PAYLOADS` and `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let payloads = env.required("LOG_PAYLOADS")?;
        if payloads && env.mode() == Mode::Production {
            return Err(ConfigError::new(
                "LOG_PAYLOADS",
                "must not be true in production",
            ));
        }
        let filter: String = env.required("RUST_LOG")?;
        let filter = EnvFilter::builder().parse(filter);
        let mut filter = filter.map_err(|error| ConfigError::new("RUST_LOG", error))?;
        if !payloads {
            let directive = PARAMETERS.parse().expect("a directive");
            filter = filter.add_directive(directive);
        }
        Ok(Self {
            format: env.required("LOG_FORMAT")?,
            filter,
            payloads,
            traces: traces::endpoint(env)?,
        })
    }
}

/// Starts logging under the service's name, panics included, and the export of the spans of the crate `traced`,
/// where that is wanted. Once per process.
pub(crate) fn init(
    service: &'static str,
    traced: &'static str,
    config: TelemetryConfig,
) -> anyhow::Result<Option<Traces>> {
    let masks = !config.payloads;
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match config.format {
        LogFormat::Json => lines
            .fmt_fields(JsonFields::new())
            .map_event_format(|format| WithService::json(service, format.json(), masks))
            .boxed(),
        LogFormat::Text => lines
            .with_ansi(io::stderr().is_terminal())
            .fmt_fields(Fields { masks })
            .map_event_format(|format| WithService::text(service, format))
            .boxed(),
    };
    let traces = config.traces.map(|url| Traces::to(&url, service));
    let traces = traces.transpose().context(traces::ENDPOINT)?;
    tracing_subscriber::registry()
        .with(lines.with_filter(config.filter))
        .with(traces.as_ref().map(|traces| traces.layer(traced)))
        .try_init()
        .context("logging")?;
    panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let location = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(location, %backtrace, "panic: {message}");
    }));
    Ok(traces)
}

/// Upper bounds, in seconds, of the buckets that histograms named `…_seconds` are counted in.
const SECONDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Installs the process's metrics recorder. Once per process.
pub fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    Ok(prometheus()?.install_recorder()?)
}

/// A recorder that nobody records to: for a service started inside of a test.
pub fn detached_metrics() -> PrometheusHandle {
    PrometheusBuilder::new().build_recorder().handle()
}

fn prometheus() -> anyhow::Result<PrometheusBuilder> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    Ok(PrometheusBuilder::new().set_buckets_for_metric(seconds, &SECONDS)?)
}
