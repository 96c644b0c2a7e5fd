//! The commands by which an operator administers Recado. What they answer is on stdout, one item a
//! line: its parts with tabs between them, or with `--json` an object. What went wrong is on stderr.

mod clients;
mod keys;
mod migrate;
mod replay;
mod retention;
mod tokens;
mod verify;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use diesel_async::AsyncPgConnection;
use domain::keyring::Keyring;
use runtime::config::{ConfigError, DatabaseConfig, Env};
use runtime::{postgres, tls};
use serde_json::Value;

use crate::config::{self, DEFAULTS};

/// `EX_USAGE`, as for a service whose configuration is wrong.
const BAD_CONFIGURATION: u8 = 64;

/// How the answer is written.
#[derive(Debug, Clone, Copy, Args)]
pub struct Answer {
    /// Answer with JSON: an object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring the database schema up to date, and make the coming days' partitions
    Migrate,
    /// Make, list and deactivate clients
    #[command(subcommand)]
    Client(clients::Command),
    /// Make, list and revoke the tokens of clients
    #[command(subcommand)]
    Token(tokens::Command),
    /// Seal what is secret under another key
    #[command(subcommand)]
    Keys(keys::Command),
    /// Deliver settled events of a webhook once more
    Replay(replay::Replay),
    /// Make the coming days' partitions, and delete now what is past its retention, as the dispatchers do by
    /// themselves
    Retention(retention::Retention),
    /// Check that nothing is lost: every message became its events, and each of these is settled or
    /// waits in a way that ends. Exits with 1 if not
    Verify,
}

/// What the commands are told by the environment.
struct Settings {
    database: DatabaseConfig,
    /// The dispatchers'; `None` keeps everything.
    retention_days: Option<u32>,
    /// Read only where it is needed: in development, to read it may be to make it.
    keyring: Option<Keyring>,
}

impl Settings {
    fn load(command: &Command) -> Result<Self, ConfigError> {
        let env = Env::load_with(DEFAULTS)?;
        let needs_keys = matches!(command, Command::Keys(_));
        let retention_days: u32 = env.required("RETENTION_DAYS")?;
        Ok(Self {
            database: DatabaseConfig::from_env(&env)?,
            retention_days: (retention_days > 0).then_some(retention_days),
            keyring: needs_keys.then(|| config::keyring(&env)).transpose()?,
        })
    }
}

/// Runs a command to its end.
pub fn run(command: &Command, answer: Answer) -> ExitCode {
    let settings = match Settings::load(command) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, ExitCode::from(BAD_CONFIGURATION)),
    };
    tls::install_provider();
    match execute(command, answer, &settings) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&format_args!("{error:#}"), ExitCode::FAILURE),
    }
}

/// On a multi-threaded runtime, without which diesel's migrations cannot run. `false` where the answer
/// is that something is not as it should be.
fn execute(command: &Command, answer: Answer, settings: &Settings) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let config = &settings.database;
        match command {
            Command::Migrate => migrate::run(config, answer).await?,
            Command::Client(command) => {
                clients::run(command, &mut connect(config).await?, answer).await?;
            }
            Command::Token(command) => {
                tokens::run(command, &mut connect(config).await?, answer).await?;
            }
            Command::Keys(command) => {
                let keyring = settings.keyring.as_ref().context("ENCRYPTION_KEYS")?;
                return keys::run(command, &mut connect(config).await?, keyring, answer).await;
            }
            Command::Replay(command) => {
                replay::run(command, &mut connect(config).await?, answer).await?;
            }
            Command::Retention(command) => {
                let mut conn = connect(config).await?;
                retention::run(command, &mut conn, settings.retention_days, answer).await?;
            }
            Command::Verify => {
                let mut conn = connect(config).await?;
                return verify::run(&mut conn, settings.retention_days, answer).await;
            }
        }
        Ok(true)
    })
}

async fn connect(config: &DatabaseConfig) -> anyhow::Result<AsyncPgConnection> {
    postgres::connect(config).await.context("PostgreSQL")
}

fn fail(problem: &dyn Display, code: ExitCode) -> ExitCode {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(io::stderr(), "recado-api: {problem}");
    code
}

impl Answer {
    /// Writes an item: these parts, or that object.
    fn line(self, parts: &[&dyn Display], object: &Value) -> io::Result<()> {
        if self.json {
            return writeln!(io::stdout(), "{object}");
        }
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        writeln!(io::stdout(), "{}", parts.join("\t"))
    }
}
