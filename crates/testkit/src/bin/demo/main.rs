//! `make demo`: Recado on this machine, from a phone's message to a verified webhook, and what happens
//! when a dispatcher dies. `--check` asserts each step and ends.

mod deliveries;
mod offers;
mod play;
mod terminal;

use std::fs::{self, File};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Parser;
use testkit::Servers;
use testkit::panics::caught;
use tokio::signal::unix::{SignalKind, signal};

use play::Play;
use terminal::say;

#[derive(Debug, Parser)]
#[command(
    name = "recado-demo",
    version,
    about = "Shows Recado at work, with everything it needs"
)]
struct Arguments {
    /// End after the last step instead of staying up
    #[arg(long)]
    check: bool,
    /// Where servers and lock are; one demo at a time in a folder
    #[arg(long, default_value = ".run/demo")]
    run_dir: PathBuf,
    /// When all this was begun, the build included: unix milliseconds
    #[arg(long, env = "RECADO_DEMO_STARTED", hide = true)]
    started: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    // What went wrong is told once, at the end.
    panic::set_hook(Box::new(|_| {}));
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("\ndemo: FAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let started = match arguments.started {
        Some(millis) => UNIX_EPOCH + Duration::from_millis(millis),
        None => SystemTime::now(),
    };
    let run_dir = std::path::absolute(&arguments.run_dir)?;
    let _alone = lock(&run_dir)?;
    let mut term = signal(SignalKind::terminate())?;
    let ended = tokio::select! {
        ended = caught(Play::new(&run_dir, started).perform(arguments.check)) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = term.recv() => Ok(()),
    };
    // Also when it was interrupted before it knew its servers.
    Servers::end_in(&run_dir).await;
    ended
}

/// Holds the folder for as long as the file is open.
fn lock(run_dir: &Path) -> anyhow::Result<File> {
    let file = fs::create_dir_all(run_dir).and_then(|()| File::create(run_dir.join("lock")));
    let file = file.with_context(|| run_dir.display().to_string())?;
    if file.try_lock().is_err() {
        bail!(
            "another demo runs in {}; end it with Ctrl-C first",
            run_dir.display()
        );
    }
    Ok(file)
}
