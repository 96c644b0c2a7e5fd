//! `make chaos`: the fault cases in full size, against the binaries that lie beside this one.
#![expect(clippy::print_stdout, reason = "its lines are what it is for")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use testkit::cases::bad_receivers::Storm;
use testkit::cases::{self, Case, Scale, Takeover};
use testkit::panics::caught;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(name = "recado-chaos", version, about = "Runs Recado's fault cases")]
struct Arguments {
    /// The cases to run; all when none is named
    cases: Vec<Case>,
    /// Messages in each case
    #[arg(long, default_value_t = 2_000)]
    messages: usize,
    /// Accounts that they go to
    #[arg(long, default_value_t = 20)]
    accounts: usize,
    /// Messages a second, on the average
    #[arg(long, default_value_t = 130.0)]
    rate: f64,
    /// How often a fault strikes
    #[arg(long, default_value_t = 5)]
    faults: usize,
    /// In bad-receivers: ten times as many webhooks
    #[arg(long, default_value_t = 5)]
    tens: usize,
    /// In bad-receivers: events a second
    #[arg(long, default_value_t = 1_000.0)]
    events: f64,
    /// In bad-receivers: seconds in which faults strike
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// In bad-receivers: seconds of each measurement
    #[arg(long, default_value_t = 12)]
    measured: u64,
    /// In takeover-*: accounts
    #[arg(long, default_value_t = 200)]
    sessions: usize,
    /// In takeover-*: messages a second
    #[arg(long, default_value_t = 200.0)]
    session_rate: f64,
    /// In takeover-*: how long a gateway's lease lasts, in seconds
    #[arg(long, default_value_t = 15)]
    lease: u64,
    /// In takeover-pause: how long PostgreSQL is away, in seconds
    #[arg(long, default_value_t = 20)]
    away: u64,
    /// Where the processes' logs are put, a folder for each case
    #[arg(long, default_value = "target/chaos")]
    logs: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let scale = Scale {
        messages: arguments.messages,
        accounts: arguments.accounts,
        rate: arguments.rate,
        faults: arguments.faults,
        storm: Storm {
            tens: arguments.tens,
            rate: arguments.events,
            measured: Duration::from_secs(arguments.measured),
            struck: Duration::from_secs(arguments.seconds),
        },
        takeover: Takeover {
            accounts: arguments.sessions,
            rate: arguments.session_rate,
            lease: Duration::from_secs(arguments.lease),
            away: Duration::from_secs(arguments.away),
        },
        logs: Some(arguments.logs),
    };
    let named = arguments.cases;
    let all = if named.is_empty() {
        Case::ALL.to_vec()
    } else {
        named
    };
    let mut term = signal(SignalKind::terminate())?;
    let mut failed = false;
    for case in all {
        let ended = tokio::select! {
            ended = caught(cases::run(case, &scale)) => ended,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::FAILURE),
            _ = term.recv() => return Ok(ExitCode::FAILURE),
        };
        match ended {
            Ok(passed) => println!("chaos: {case} ok {passed}"),
            Err(why) => {
                println!("chaos: {case} FAILED {why:#}");
                failed = true;
            }
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
