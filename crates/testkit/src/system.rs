//! The whole of Recado as its users run it: servers, services, the simulator and a receiver, each a
//! process of its own that can be killed, and the people who use them. All of it ends with this value.

pub mod account;
pub mod api;
mod http;
pub mod phones;
pub mod postbox;
pub mod records;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::join_all;
use rand::RngExt;
use rustix::process::Pid;

use crate::process::Output;
use crate::servers::{Server, Servers};
use crate::{Process, Program, free_port};
pub use account::Account;
pub use api::Api;
pub use phones::Phones;
pub use postbox::Postbox;
pub use records::Records;

/// How a system is laid out.
#[derive(Debug, Clone)]
pub struct Settings {
    pub gateways: usize,
    pub dispatchers: usize,
    /// How long a gateway's sessions stay its own when it is not heard of.
    pub lease: Duration,
    /// What one attempt at a delivery may take.
    pub webhook_timeout: Duration,
    /// Where the processes' logs are put when the system ends; nowhere: they are gone.
    pub logs: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            gateways: 1,
            dispatchers: 1,
            lease: Duration::from_secs(15),
            webhook_timeout: Duration::from_secs(10),
            logs: None,
        }
    }
}

/// Servers with Recado's schema and a client of its, before any service runs.
#[derive(Debug)]
pub struct Ground {
    pub servers: Servers,
    encryption_keys: String,
    token: String,
}

impl Ground {
    /// Migrates, and makes a client and its token.
    pub async fn prepare(servers: Servers) -> anyhow::Result<Self> {
        command(&servers, &["migrate"]).await?;
        let made = command(&servers, &["client", "create", "demo"]).await?;
        let mut words = made.split_whitespace();
        let token = words.find(|word| word.starts_with("rcd_"));
        let token = token.context("recado-api client create printed no token")?;
        let key = BASE64_STANDARD.encode(rand::rng().random::<[u8; 32]>());
        Ok(Self {
            token: token.to_owned(),
            encryption_keys: format!("own:{key}"),
            servers,
        })
    }

    /// For `ENCRYPTION_KEYS`.
    pub fn encryption_keys(&self) -> &str {
        &self.encryption_keys
    }

    /// A service on these servers.
    pub fn service(&self, name: &str, webhook_timeout: Duration) -> Program {
        Program::service(name)
            .env("DATABASE_URL", self.servers.database_url())
            .env("REDIS_URL", self.servers.redis_url())
            .env("ENCRYPTION_KEYS", &self.encryption_keys)
            .env("WEBHOOK_TIMEOUT", webhook_timeout.as_millis())
            .env("WEBHOOK_ALLOWED_CIDRS", "127.0.0.0/8")
    }

    /// What PostgreSQL knows.
    pub async fn records(&self) -> anyhow::Result<Records> {
        Records::connect(self.servers.database_url()).await
    }

    /// See [`System::verify`].
    pub async fn verify(&self) -> anyhow::Result<Vec<String>> {
        verify(&self.servers).await
    }

    /// Starts everything and waits until all of it is ready.
    pub async fn launch(self, settings: Settings) -> anyhow::Result<System> {
        let (simulator_port, receiver_port) = (free_port(), free_port());
        let (simulator, receiver) = tokio::join!(
            // Its folder outlives a restart, and so do its keys, accounts and messages.
            listener("recado-simulator", simulator_port, "/admin/stats")
                .arg("--state")
                .arg("state")
                .start(),
            listener("recado-receiver", receiver_port, "/_control/sunk").start(),
        );
        let service = |name| self.service(name, settings.webhook_timeout);
        let media_url = format!("http://127.0.0.1:{simulator_port}");
        let api = service("recado-api")
            .port("PORT")
            .env("WHATSAPP_MEDIA_URL", &media_url)
            .env("RATE_LIMIT_PER_CLIENT", 100_000)
            .env("RATE_LIMIT_PER_ADDRESS", 100_000);
        let gateway = service("recado-gateway")
            .env(
                "WHATSAPP_URL",
                format!("ws://127.0.0.1:{simulator_port}/ws/chat"),
            )
            .env("GATEWAY_CONNECT_RATE", 1_000)
            .env("GATEWAY_LEASE_SECONDS", settings.lease.as_secs());
        let gateways = (0..settings.gateways).map(|_| gateway.clone().port("OPS_PORT").start());
        let dispatcher = service("recado-dispatcher").env("WHATSAPP_MEDIA_URL", &media_url);
        let dispatchers =
            (0..settings.dispatchers).map(|_| dispatcher.clone().port("OPS_PORT").start());
        let (api, gateways, dispatchers) =
            tokio::join!(api.start(), join_all(gateways), join_all(dispatchers));
        let http = http::client()?;
        Ok(System {
            phones: Phones::new(&http, simulator_port),
            postbox: Postbox::new(&http, receiver_port),
            users: Api::new(&http, api.port("PORT"), &self.token),
            simulator,
            receiver,
            api,
            gateways,
            dispatchers,
            logs: Logs(settings.logs),
            token: self.token,
            servers: self.servers,
        })
    }
}

/// Recado, running.
#[derive(Debug)]
pub struct System {
    /// The API as a client of Recado's uses it.
    pub users: Api,
    /// The people who write, and their WhatsApp.
    pub phones: Phones,
    /// What arrived at the receiver.
    pub postbox: Postbox,
    pub simulator: Process,
    pub receiver: Process,
    pub api: Process,
    pub gateways: Vec<Process>,
    pub dispatchers: Vec<Process>,
    logs: Logs,
    token: String,
    // Last, so that they outlive those who use them.
    pub servers: Servers,
}

impl System {
    /// A system on durable servers of its own.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let servers = Servers::start_durable().await;
        Ground::prepare(servers).await?.launch(settings).await
    }

    /// The client's API token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What PostgreSQL knows.
    pub async fn records(&self) -> anyhow::Result<Records> {
        Records::connect(self.servers.database_url()).await
    }

    /// What `recado-api verify` finds broken; nothing, as it should be.
    pub async fn verify(&self) -> anyhow::Result<Vec<String>> {
        verify(&self.servers).await
    }

    /// The addresses, as `make up` writes them into `.run/env`.
    pub fn env(&self) -> String {
        let variables = [
            ("API_URL", self.users.url()),
            ("API_TOKEN", &self.token),
            ("SIMULATOR_URL", self.phones.url()),
            ("RECEIVER_URL", &self.postbox.url("")),
            ("DATABASE_URL", self.servers.database_url()),
            ("REDIS_URL", self.servers.redis_url()),
        ];
        let lines = variables.map(|(name, value)| format!("{name}={value}\n"));
        lines.concat()
    }

    /// The doorbell's server.
    pub async fn redis(&self) -> anyhow::Result<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.servers.redis_url())?;
        let connection = client.get_multiplexed_async_connection().await;
        connection.context("Redis")
    }

    /// All of it by name, PostgreSQL and Redis included.
    pub fn processes(&self) -> Vec<(String, Pid)> {
        let mut all: Vec<_> = self
            .parts()
            .map(|(name, part)| (name, part.pid()))
            .collect();
        all.push(("postgres".to_owned(), self.servers.pid(Server::Postgres)));
        all.push(("redis".to_owned(), self.servers.pid(Server::Redis)));
        all
    }

    /// Ends all services in good order, those first that take work in.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for part in [&mut self.api]
            .into_iter()
            .chain(&mut self.gateways)
            .chain(&mut self.dispatchers)
        {
            if part.runs() {
                let status = part.stop().await;
                ensure!(status.success(), "a service ended with {status}");
            }
        }
        Ok(())
    }

    fn parts(&self) -> impl Iterator<Item = (String, &Process)> {
        let one = [
            ("simulator", &self.simulator),
            ("receiver", &self.receiver),
            ("api", &self.api),
        ];
        let one = one.map(|(name, part)| (name.to_owned(), part));
        one.into_iter()
            .chain(several("gateway", &self.gateways))
            .chain(several("dispatcher", &self.dispatchers))
    }
}

fn several<'a>(
    name: &'static str,
    parts: &'a [Process],
) -> impl Iterator<Item = (String, &'a Process)> {
    let numbered = parts.iter().zip(1..);
    numbered.map(move |(part, number)| (format!("{name}-{number}"), part))
}

impl Drop for System {
    fn drop(&mut self) {
        self.logs.keep(self.parts());
    }
}

/// Where logs are put; nowhere: they are gone with their processes.
#[derive(Debug)]
pub(crate) struct Logs(pub(crate) Option<PathBuf>);

impl Logs {
    /// Writes what these have logged, each into a file of its name.
    pub(crate) fn keep<'a>(&self, parts: impl IntoIterator<Item = (String, &'a Process)>) {
        let Some(folder) = &self.0 else { return };
        let written = fs::create_dir_all(folder).and_then(|()| {
            parts
                .into_iter()
                .try_for_each(|(name, part)| fs::write(folder.join(name + ".log"), part.logs()))
        });
        if let Err(error) = written {
            eprintln!(
                "the logs could not be put into {}: {error}",
                folder.display()
            );
        }
    }
}

async fn verify(servers: &Servers) -> anyhow::Result<Vec<String>> {
    let done = run(servers, &["verify"]).await;
    let broken = done
        .stdout
        .lines()
        .filter(|line| line.starts_with("broken"));
    let broken: Vec<String> = broken.map(str::to_owned).collect();
    ensure!(
        done.status.success() == broken.is_empty(),
        "recado-api verify: {}\n{}{}",
        done.status,
        done.stdout,
        done.stderr
    );
    Ok(broken)
}

async fn run(servers: &Servers, arguments: &[&str]) -> Output {
    let program = Program::new("recado-api")
        .env("APP_ENV", "development")
        .env("DATABASE_URL", servers.database_url())
        .env("REDIS_URL", servers.redis_url());
    arguments.iter().fold(program, Program::arg).run().await
}

async fn command(servers: &Servers, arguments: &[&str]) -> anyhow::Result<String> {
    let done = run(servers, arguments).await;
    ensure!(
        done.status.success(),
        "recado-api {}: {}\n{}",
        arguments.join(" "),
        done.status,
        done.stderr
    );
    Ok(done.stdout)
}

/// What is told its address by an argument.
fn listener(name: &str, port: u16, readiness: &str) -> Program {
    Program::new(name)
        .arg("--listen")
        .arg(format!("127.0.0.1:{port}"))
        .ready_at(port, readiness)
}
