use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use simulator::{Config, Simulator};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod load;

/// A WhatsApp server double: point a client at ws://ADDRESS/ws/chat.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Address of both the WhatsApp protocol and the control API
    #[arg(long, env = "SIMULATOR_LISTEN", default_value = "127.0.0.1:8790")]
    listen: SocketAddr,
    /// Address of the same behind TLS (wss, https), with a certificate of its own
    #[arg(long, env = "SIMULATOR_LISTEN_TLS")]
    listen_tls: Option<SocketAddr>,
    /// File to write that certificate to, as PEM, for clients that shall trust it
    #[arg(long, env = "SIMULATOR_CERTIFICATE", value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Folder to keep keys, accounts and messages in; without it a restart forgets them
    #[arg(long, env = "SIMULATOR_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    Load(load::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Load(arguments)) => load::run(arguments).await,
        None => run(arguments).await.map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("recado-simulator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let simulator = Simulator::start(Config {
        listen: arguments.listen,
        state: arguments.state,
    })
    .await?;
    tracing::info!(address = %simulator.address(), "listening");
    if let Some(listen) = arguments.listen_tls {
        let address = simulator.listen_tls(listen).await?;
        tracing::info!(%address, "listening behind TLS");
    }
    if let Some(file) = arguments.certificate {
        std::fs::write(&file, simulator.certificate()?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        why = simulator.failed() => anyhow::bail!("the state cannot be written: {why}"),
    }
    simulator.stop().await;
    Ok(())
}
