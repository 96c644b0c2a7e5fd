//! A webhook receiver for development, demonstrations and benches. It takes what is posted to any
//! path, checks signatures, and tells under `/_control` what came (see `testkit::receiver::control`).

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testkit::receiver::record::{Record, Secret};
use testkit::receiver::{Surface, serve};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(
    name = "recado-receiver",
    version,
    about = "A webhook receiver that shows what it received"
)]
struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9900")]
    listen: SocketAddr,
    /// A secret (whsec_…) to check signatures with; may be given several times
    #[arg(long)]
    secret: Vec<String>,
    /// Threads that serve
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Two per connection are needed, and the usual limit of 1,024 is soon reached.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?;
    let record = Arc::new(Record::default());
    for secret in arguments.secret {
        record.tell(Secret {
            webhook_id: None,
            secret,
        });
    }
    let (address, server) = serve(
        arguments.listen,
        record,
        Surface::Controlled,
        arguments.workers,
    )?;
    eprintln!("recado-receiver listens on http://{address}");
    let handle = server.handle();
    let mut served = tokio::spawn(server);
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        ended = &mut served => return Ok(ended??),
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    handle.stop(true).await;
    Ok(())
}
