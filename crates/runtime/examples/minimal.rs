//! The smallest service: it has an ops port, and a job that takes `JOB` milliseconds when it is
//! told to stop, in a span. `FAIL` makes it fail in one of two ways.

use std::process::ExitCode;
use std::time::Duration;

use runtime::config::{ConfigError, Env, OpsConfig};
use runtime::ops::{self, Readiness};
use runtime::{Context, Service, run};
use tracing::Instrument;

const DEFAULTS: &str = "
# How long the job in hand takes.
JOB = 0
";

struct Config {
    ops: OpsConfig,
    job: Duration,
    fail: Option<String>,
}

impl Config {
    fn load(env: &Env) -> Result<Self, ConfigError> {
        Ok(Self {
            ops: OpsConfig::from_env(env, 9089)?,
            job: Duration::from_millis(env.required("JOB")?),
            fail: env.optional("FAIL")?,
        })
    }
}

fn main() -> ExitCode {
    run(
        Service::new("minimal").defaults(DEFAULTS).traced("minimal"),
        Config::load,
        live,
    )
}

async fn live(context: Context<Config>) -> anyhow::Result<()> {
    let Context {
        config,
        shutdown,
        metrics,
    } = context;
    match config.fail.as_deref() {
        Some("panic") => panic!("told to by 5511999999999"),
        Some(_) => anyhow::bail!("told to"),
        None => {}
    }
    let address = ops::serve(config.ops, Readiness::new(), metrics, shutdown.clone()).await?;
    tracing::info!(%address, "up");
    shutdown.soft().cancelled().await;
    let job = tracing::debug_span!("job", of = "5511999999999");
    shutdown.spawn(tokio::time::sleep(config.job).instrument(job));
    Ok(())
}
