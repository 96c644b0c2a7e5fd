use std::process::ExitCode;

use dispatcher::config::{Config, DEFAULTS};
use runtime::Service;

/// Deliveries are many small allocations on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let service = Service::new("dispatcher").defaults(DEFAULTS);
    runtime::run(service, Config::from_env, async |context| {
        dispatcher::start(context.config, context.metrics, &context.shutdown)
            .await?
            .finished()
            .await
    })
}
