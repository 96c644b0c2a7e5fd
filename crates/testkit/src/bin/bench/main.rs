//! `make bench`: what Recado does on this machine, into `target/bench/report.json`, with what else the
//! machine was doing. Measures the binaries that lie beside this one.
#![expect(clippy::print_stdout, reason = "its table is what it is for")]

mod latency;
mod machine;
mod report;

use std::path::PathBuf;

use anyhow::ensure;
use clap::Parser;
use testkit::panics::caught;
use tokio::signal::unix::{SignalKind, signal};

use latency::Load;
use report::{Report, Row};

/// The rows that there are.
const P50: &str = "whatsapp_to_receiver_p50_ms";
const P99: &str = "whatsapp_to_receiver_p99_ms";

#[derive(Debug, Parser)]
#[command(
    name = "recado-bench",
    version,
    about = "Measures Recado on this machine"
)]
struct Arguments {
    /// The rows to measure, with commas between them; all by default
    #[arg(env = "ROWS", value_delimiter = ',')]
    rows: Vec<String>,
    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages a second, over all accounts
    #[arg(long, default_value_t = 100)]
    rate: usize,
    #[arg(long, default_value_t = 20)]
    accounts: usize,
    /// How long a round lasts
    #[arg(long, default_value_t = 30)]
    seconds: usize,
    /// Where the report goes
    #[arg(long, default_value = "target/bench/report.json")]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = caught(measure(&arguments)) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = term.recv() => Ok(()),
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let rows: Vec<_> = arguments
        .rows
        .iter()
        .map(String::as_str)
        .filter(|row| !row.is_empty())
        .collect();
    for row in &rows {
        ensure!(
            [P50, P99].contains(row),
            "there is no row {row:?}; there are {P50}, {P99}"
        );
    }
    let load = Load {
        accounts: arguments.accounts,
        per_second: arguments.rate,
        seconds: arguments.seconds,
    };
    let rounds = latency::rounds(&load, arguments.rounds).await?;
    let values = |at: fn(&latency::Round) -> f64| rounds.iter().map(at).collect();
    let mut report = Report::new();
    for (name, values) in [
        (P50, values(|round| round.p50)),
        (P99, values(|round| round.p99)),
    ] {
        if rows.is_empty() || rows.contains(&name) {
            report.rows.push(Row::of(name, "ms", values));
        }
    }
    report.write(&arguments.out)?;
    println!("\n{report}");
    println!("written to {}", arguments.out.display());
    Ok(())
}
