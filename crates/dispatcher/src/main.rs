use std::process::ExitCode;

use dispatcher::config::{Config, DEFAULTS};
use runtime::Service;

/// Deliveries are many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One runs tens of thousands of deliveries a second. More would hand each of them to and fro, which
/// costs a fourth more; more processes share the work without that.
const THREADS: usize = 1;

fn main() -> ExitCode {
    let service = Service::new("recado-dispatcher")
        .defaults(DEFAULTS)
        .traced("dispatcher")
        .worker_threads(THREADS);
    runtime::run(service, Config::from_env, async |context| {
        dispatcher::start(context.config, context.metrics, &context.shutdown)
            .await?
            .finished()
            .await
    })
}
