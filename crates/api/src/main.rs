use std::process::ExitCode;

use api::admin;
use api::config::Config;
use clap::{Parser, Subcommand};
use runtime::Service;

/// Recado's HTTP API and its administration.
#[derive(Parser)]
#[command(name = "recado-api", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    answer: admin::Answer,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API (also without a command)
    Serve,
    #[command(flatten)]
    Admin(admin::Command),
}

fn main() -> ExitCode {
    let Cli { command, answer } = Cli::parse();
    match command.unwrap_or(Command::Serve) {
        Command::Serve => {
            let service = Service::new("recado-api")
                .defaults(api::config::DEFAULTS)
                .traced("api");
            runtime::run(service, Config::from_env, api::app::serve)
        }
        Command::Admin(command) => admin::run(&command, answer),
    }
}
