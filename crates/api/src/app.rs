//! The server as a whole: built on its ports, then run until it is told to stop.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use actix_web::dev::Server;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use queue::{Doorbell, RateLimiter};
use runtime::ops::{self, Readiness};
use runtime::shutdown::Shutdown;
use runtime::{Context, postgres, redis};
use tokio::sync::Semaphore;
use tracing_actix_web::TracingLogger;

use crate::access::{self, Access};
use crate::config::Config;
use crate::database::Database;
use crate::handlers::docs::Document;
use crate::limits::{Limits, limit};
use crate::media::Media;
use crate::routes::routes;
use crate::state::State;
use crate::streams::Streams;

/// Files that clients upload at once: each is in memory as a whole.
const UPLOADS: usize = 8;

/// The API on its ports. It takes connections from here on and answers them once it runs.
pub struct Application {
    server: Server,
    address: SocketAddr,
    ops: SocketAddr,
    shutdown: Shutdown,
}

/// The body of the service.
pub async fn serve(context: Context<Config>) -> anyhow::Result<()> {
    let Context {
        config,
        shutdown,
        metrics,
    } = context;
    let application = Application::build(config, metrics, shutdown).await?;
    tracing::info!(address = %application.address, ops = %application.ops, "serving");
    application.run().await
}

impl Application {
    /// Binds the ports (0: the system chooses). Needs neither PostgreSQL nor Redis to be there: it says
    /// on `/readyz` what is missing, and works as soon as it is.
    pub async fn build(
        config: Config,
        metrics: PrometheusHandle,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let redis = redis::pool(&config.redis)?;
        let database = Database::new(postgres::pool(&config.database)?, config.dev_token);
        if let Err(problem) = database.check().await {
            tracing::warn!("not ready yet: {problem}");
        }
        let readiness = readiness(&database, &redis);
        let workers = available_parallelism().map_or(1, NonZeroUsize::get);
        let connections = config.limits.connections.get().div_ceil(workers);
        let streams = Streams::default();
        tokio::spawn(streams.clone().look(database.clone()));
        let state = Data::new(State {
            database,
            doorbell: Doorbell::new(redis.clone()),
            limits: Limits::new(RateLimiter::new(redis), config.limits),
            keyring: config.keyring,
            receivers: config.receivers,
            media: Media::new(config.media)?,
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            streams,
            closing: shutdown.soft().clone(),
            gateway_wait: config.gateway_wait,
            attempt_wait: config.attempt_wait,
        });
        let document = Data::new(Document::new());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(state.clone())
                .app_data(document.clone())
                .wrap(from_fn(limit))
                .wrap(DefaultHeaders::new().add(("Cache-Control", "no-store")))
                .wrap(TracingLogger::<Access>::new())
                .wrap(from_fn(access::name))
                .configure(routes)
        })
        .workers(workers)
        .max_connections(connections)
        .disable_signals()
        // How long requests in hand may take is the shutdown's to say.
        .shutdown_timeout(u64::from(u32::MAX))
        .bind(config.http.address())
        .with_context(|| format!("the API's port {}", config.http.address()))?;
        let address = server.addrs()[0];
        let ops = ops::serve(config.ops, readiness, metrics, shutdown.clone()).await?;
        Ok(Self {
            server: server.run(),
            address,
            ops,
            shutdown,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn ops_address(&self) -> SocketAddr {
        self.ops
    }

    /// Serves until the soft stop, then finishes what is in hand, but no longer than to the hard stop.
    pub async fn run(self) -> anyhow::Result<()> {
        let handle = self.server.handle();
        tokio::spawn(async move {
            self.shutdown.soft().cancelled().await;
            tokio::select! {
                () = handle.stop(true) => {}
                () = self.shutdown.hard().cancelled() => handle.stop(false).await,
            }
        });
        self.server.await.context("the HTTP server")
    }
}

fn readiness(database: &Database, redis: &redis::Pool) -> Readiness {
    let schema = database.clone();
    Readiness::new()
        .postgres(database.pool())
        .check("schema", move || {
            let database = schema.clone();
            async move { database.check().await }
        })
        .redis(redis.clone())
}
