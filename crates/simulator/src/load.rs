//! Load on a gateway, measured from outside: numbers are linked through its API as people link
//! them, contacts write at a rate, and what comes back is held against what was sent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

mod api;
mod phones;
mod receiver;
mod report;

use api::{Api, Number};
use phones::Phones;
use receiver::Receiver;
use report::Report;

/// Link numbers through a gateway's API, let contacts write to them, and report what arrived.
///
/// Each number is linked by POST /api/whatsapp/connect and the QR code of GET /api/whatsapp/qr,
/// which a phone of the simulator scans, and gets a webhook at a receiver of this program's own.
/// Contacts then write to all numbers in turn. Exit code 1 when a message was not acknowledged or
/// not delivered.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The gateway's API
    #[arg(long, env = "API_URL", value_name = "URL")]
    api: String,
    /// A client's token for it
    #[arg(long, env = "API_TOKEN", hide_env_values = true)]
    token: String,
    /// The simulator that the gateway is connected to
    #[arg(long, env = "SIMULATOR_URL", value_name = "URL")]
    simulator: String,
    /// How many numbers are linked
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    accounts: u32,
    /// How many contacts write to each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    contacts: u32,
    /// Messages a second, over all numbers
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// How long contacts write: 500ms, 30s, 5m
    #[arg(long, default_value = "30s", value_parser = duration)]
    duration: Duration,
    /// How long to wait afterwards for what is still on its way
    #[arg(long, default_value = "60s", value_parser = duration)]
    patience: Duration,
    /// Where the built-in receiver listens; the gateway must be allowed to deliver there
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    receiver: SocketAddr,
    /// Deliver to this webhook instead; then only acknowledgements are measured
    #[arg(long, value_name = "URL", conflicts_with = "receiver")]
    webhook_url: Option<String>,
    /// How many numbers are linked at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// The first number; else one that no earlier run has had
    #[arg(long, value_name = "DIGITS")]
    first_number: Option<u64>,
    /// Leave numbers and webhooks as they are at the end
    #[arg(long)]
    keep: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// A number with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let milliseconds = match &text[digits.len()..] {
        "ms" => 1.0,
        "s" | "" => 1_000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        unit => return Err(format!("{unit} is no unit: ms, s, m or h")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("{text} is no time"))?;
    Duration::try_from_secs_f64(number * milliseconds / 1_000.0).map_err(|error| error.to_string())
}

/// For API and simulator both: neither takes long, and nobody else is spoken to.
fn http() -> Result<reqwest::Client> {
    // Plain http only as a rule, but there has to be a provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60));
    Ok(client.build()?)
}

/// Numbers that nothing treats as the same as others, and that differ from run to run.
fn first_number() -> u64 {
    491_510_000_000 + rand::random_range(0..9_000_u64) * 100_000
}

/// Whether nothing was lost.
pub(crate) async fn run(arguments: Arguments) -> Result<bool> {
    let rate = arguments.rate;
    ensure!(rate.is_finite() && rate > 0.0, "--rate is above 0");
    let http = http()?;
    let phones = Phones::new(&http, &arguments.simulator);
    let api = Api::new(&http, &arguments.api, &arguments.token);
    let receiver = match &arguments.webhook_url {
        Some(_) => None,
        None => Some(Receiver::start(arguments.receiver)?),
    };
    let url = arguments.webhook_url.clone();
    let url = url.or_else(|| Some(receiver.as_ref()?.url()));
    let url = url.context("either a receiver or a webhook")?;

    let linking = Instant::now();
    let first = arguments.first_number.unwrap_or_else(first_number);
    let numbers = (0..u64::from(arguments.accounts)).map(|turn| (first + turn).to_string());
    let numbers: Vec<Number> = stream::iter(numbers)
        .map(|phone| api.link(&phones, phone, &url))
        .buffer_unordered(arguments.parallel.into())
        .try_collect()
        .await?;
    let linking = linking.elapsed();
    tracing::info!(numbers = numbers.len(), ?linking, "linked; contacts write");

    let sent = write(&phones, &numbers, &arguments).await;
    let report = match sent {
        Ok(sent) => measure(&phones, receiver.as_ref(), &sent, linking, &arguments).await,
        Err(error) => Err(error),
    };
    if !arguments.keep {
        tidy_up(&api, &numbers, &arguments).await;
    }
    if let Some(receiver) = receiver {
        receiver.stop().await;
    }
    let report = report?;
    report.print(arguments.json)?;
    Ok(report.nothing_lost())
}

/// Every number gets its share of the messages; the simulator keeps the schedule. The ids by
/// number.
async fn write(
    phones: &Phones,
    numbers: &[Number],
    arguments: &Arguments,
) -> Result<HashMap<String, Vec<String>>> {
    let share = arguments.rate / numbers.len() as f64;
    let total = (arguments.rate * arguments.duration.as_secs_f64()).ceil() as usize;
    let calls = numbers.iter().enumerate().map(|(turn, number)| {
        // Whoever comes first takes what can't be shared evenly.
        let count = total / numbers.len() + usize::from(turn < total % numbers.len());
        let start = Duration::from_secs_f64(turn as f64 / arguments.rate);
        async move {
            if count == 0 {
                return Ok((number.phone.clone(), vec![]));
            }
            // One number after the other, so that the rate is even.
            tokio::time::sleep(start).await;
            let ids = phones.write(&number.phone, arguments.contacts, count, share);
            anyhow::Ok((number.phone.clone(), ids.await?))
        }
    });
    stream::iter(calls)
        .buffer_unordered(numbers.len())
        .try_collect()
        .await
}

/// Waits until everything is there, or for as long as was asked for.
async fn measure(
    phones: &Phones,
    receiver: Option<&Receiver>,
    sent: &HashMap<String, Vec<String>>,
    linking: Duration,
    arguments: &Arguments,
) -> Result<Report> {
    const LOOK: Duration = Duration::from_millis(500);
    let deadline = Instant::now() + arguments.duration + arguments.patience;
    tokio::time::sleep(arguments.duration).await;
    loop {
        let mut ledger = HashMap::new();
        for phone in sent.keys() {
            ledger.extend(phones.ledger(phone).await?);
        }
        let received = receiver.map(Receiver::received);
        let report = Report::of(sent, &ledger, received.as_ref(), linking);
        if report.nothing_lost() || Instant::now() > deadline {
            return Ok(report);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What this run has made is taken away again, as far as that goes.
async fn tidy_up(api: &Api, numbers: &[Number], arguments: &Arguments) {
    let all = stream::iter(numbers).for_each_concurrent(
        usize::from(arguments.parallel),
        async |number: &Number| {
            if let Err(error) = api.forget(number).await {
                tracing::warn!(number.phone, "left behind: {error:#}");
            }
        },
    );
    all.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_with_a_unit() {
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("7").unwrap(), Duration::from_secs(7));
        assert!(duration("7 days").is_err());
        assert!(duration("-1s").is_err());
        assert!(duration("s").is_err());
    }
}
