//! `recado-gateway`

#![recursion_limit = "512"]

use std::process::ExitCode;

use gateway::config::{Config, DEFAULTS};
use runtime::Service;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let service = Service::new("recado-gateway")
        .defaults(DEFAULTS)
        .traced("gateway");
    runtime::run(service, Config::load, gateway::app::run)
}
