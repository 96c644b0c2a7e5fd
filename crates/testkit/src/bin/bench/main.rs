//! `make bench`: what Recado does on this machine, into `target/bench/report.json`, with what else the
//! machine was doing. Measures the binaries that lie beside this one.
#![expect(clippy::print_stdout, reason = "its table is what it is for")]

mod baseline;
mod drain;
mod history;
mod machine;
mod percentile;
mod report;
mod rows;
mod seed;
mod sink;
mod stage;
mod steady;

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, Parser, Subcommand};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use report::Report;
use rows::{Extent, Wanted};

/// As the dispatcher has it, so that A is not slower for want of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(
    name = "recado-bench",
    version,
    about = "Measures Recado on this machine",
    args_conflicts_with_subcommands = true
)]
struct CommandLine {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    arguments: Arguments,
}

/// What it starts of itself.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Sink(sink::Place),
    #[command(hide = true)]
    Baseline(baseline::Load),
}

#[derive(Debug, Args)]
struct Arguments {
    /// The rows to measure, with commas between them; all by default
    #[arg(env = "ROWS", value_delimiter = ',')]
    rows: Vec<String>,
    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Events of a backlog that is drained
    #[arg(long, default_value_t = 200_000)]
    events: usize,
    /// Where the report goes
    #[arg(long, default_value = "target/bench/report.json")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let CommandLine { part, arguments } = CommandLine::parse();
    let mut builder = match part {
        // One thread: a second would take more from the others than it gives.
        Some(Part::Sink(_)) => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build()?;
    runtime.block_on(async {
        match part {
            Some(Part::Sink(place)) => sink::serve(&place).await,
            Some(Part::Baseline(load)) => baseline::send(&load).await,
            None => until_stopped(&arguments).await,
        }
    })
}

async fn until_stopped(arguments: &Arguments) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = measure(arguments) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = term.recv() => Ok(()),
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let wanted = Wanted::named(&arguments.rows)?;
    let extent = Extent {
        rounds: arguments.rounds,
        events: arguments.events,
    };
    ensure!(extent.rounds > 0, "no round is no measurement");
    let (rows, failures) = wanted.measure(&extent).await;
    let report = Report::of(rows);
    report.write(&arguments.out)?;
    println!("\n{report}");
    println!("written to {}", arguments.out.display());
    for failure in &failures {
        eprintln!("not measured: {failure:#}");
    }
    ensure!(failures.is_empty(), "not all rows could be measured");
    Ok(())
}
