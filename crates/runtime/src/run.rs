//! The shell around every service's `main`.

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::config::{ConfigError, Env};
use crate::shutdown::Shutdown;
use crate::telemetry::{self, TelemetryConfig};
use crate::tls;

/// `EX_USAGE` of sysexits.h: the configuration is wrong, and starting again won't help.
const BAD_CONFIGURATION: u8 = 64;
/// What may pass between the hard stop and the end of the process.
const AFTER_HARD_STOP: Duration = Duration::from_secs(1);

/// Which program runs, and the defaults of its own variables.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    name: &'static str,
    defaults: &'static str,
    traced: &'static str,
    worker_threads: Option<usize>,
}

impl Service {
    /// A service without defaults of its own. The name is on its log lines and traces.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            defaults: "",
            traced: "",
            worker_threads: None,
        }
    }

    /// The defaults of the service's own variables: TOML laid out as this crate's
    /// `config/defaults.toml`, over which it goes.
    #[must_use]
    pub fn defaults(self, defaults: &'static str) -> Self {
        Self { defaults, ..self }
    }

    /// The crate whose spans are exported, where that is wanted.
    #[must_use]
    pub fn traced(self, traced: &'static str) -> Self {
        Self { traced, ..self }
    }

    /// Threads that run its tasks; otherwise there are as many as processors.
    #[must_use]
    pub fn worker_threads(self, count: usize) -> Self {
        Self {
            worker_threads: Some(count),
            ..self
        }
    }
}

impl From<&'static str> for Service {
    fn from(name: &'static str) -> Self {
        Self::new(name)
    }
}

/// What a service's body is given.
#[derive(Debug)]
pub struct Context<C> {
    /// What `load` made of the environment.
    pub config: C,
    /// Obeys the signals already.
    pub shutdown: Shutdown,
    /// Renders what the process recorded: for [`crate::ops::serve`].
    pub metrics: PrometheusHandle,
}

/// Runs a service from its configuration to its end. A wrong configuration is one line on stderr
/// and exit code 64, any other error is logged and is exit code 1. When `body` returns, the tasks
/// in the shutdown's tracker are waited for.
pub fn run<C, F, Fut>(
    service: impl Into<Service>,
    load: fn(&Env) -> Result<C, ConfigError>,
    body: F,
) -> ExitCode
where
    F: FnOnce(Context<C>) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let service = service.into();
    let settings = match Settings::load(service, load) {
        Ok(settings) => settings,
        Err(error) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr(), "{}: {error}", service.name);
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    tls::install_provider();
    let traces = match telemetry::init(service.name, service.traced, settings.telemetry) {
        Ok(traces) => traces,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{}: {error:#}", service.name);
            return ExitCode::FAILURE;
        }
    };
    let ended = live(service, settings.config, settings.grace, body);
    if let Some(traces) = traces {
        traces.end();
    }
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Settings<C> {
    config: C,
    telemetry: TelemetryConfig,
    grace: Duration,
}

impl<C> Settings<C> {
    fn load(
        service: Service,
        load: fn(&Env) -> Result<C, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let env = Env::load_with(service.defaults)?;
        Ok(Self {
            telemetry: TelemetryConfig::from_env(&env)?,
            grace: Duration::from_millis(env.required("SHUTDOWN_GRACE")?),
            config: load(&env)?,
        })
    }
}

fn live<C, F, Fut>(service: Service, config: C, grace: Duration, body: F) -> anyhow::Result<()>
where
    F: FnOnce(Context<C>) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let metrics = telemetry::install_metrics().context("the metrics recorder")?;
    // Multi-threaded: diesel's migrations and actix-web's servers both block a thread at times.
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    if let Some(count) = service.worker_threads {
        threads.worker_threads(count);
    }
    let runtime = threads.enable_all().build()?;
    let result = runtime.block_on(async {
        let shutdown = Shutdown::new(grace);
        shutdown.listen().context("the signals")?;
        let context = Context {
            config,
            shutdown: shutdown.clone(),
            metrics,
        };
        let result = tokio::select! {
            result = body(context) => result,
            () = abandoned(&shutdown) => Err(anyhow::anyhow!("did not stop in time")),
        };
        let asked_to_stop = shutdown.soft().is_cancelled();
        let finished = shutdown.finish().await;
        shutdown.hard().cancel();
        result?;
        anyhow::ensure!(finished, "work in progress was abandoned");
        if asked_to_stop {
            tracing::info!("stopped");
        }
        Ok(())
    });
    runtime.shutdown_timeout(AFTER_HARD_STOP);
    result
}

/// A body that doesn't obey the hard stop is left behind.
async fn abandoned(shutdown: &Shutdown) {
    shutdown.hard().cancelled().await;
    tokio::time::sleep(AFTER_HARD_STOP).await;
}
