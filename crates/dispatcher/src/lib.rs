//! Delivers events to webhooks. In the order in which an event meets them: [`intake`] claims it, its
//! [`endpoint`] says how it is to be delivered, [`lanes`] keep slow receivers apart, a file that is to be
//! within the delivery is put [`inline`], [`deliver`] sends it ([`sign`]ed, past the [`guard`]), [`policy`]
//! says what that means, the [`recorder`] writes it down. [`flow`] carries it along.

pub mod config;

mod deliver;
mod endpoint;
mod flow;
mod guard;
mod inline;
mod intake;
mod lanes;
mod policy;
mod recorder;
mod sign;

mod link;
mod maintenance;
mod meters;
mod outage;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use domain::keyring::Keyring;
use domain::migration;
use metrics_exporter_prometheus::PrometheusHandle;
use queue::{Doorbell, Listener, RateLimiter};
use runtime::config::DatabaseConfig;
use runtime::ops::{self, Readiness};
use runtime::shutdown::Shutdown;
use runtime::{postgres, redis};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use config::{Config, SendingConfig};
use deliver::{CONNECT, Clients};
use endpoint::{Endpoints, Opener};
use flow::Flow;
use guard::Guard;
use inline::Inliner;
use intake::{Budget, Gate, Poller, Ring, Source};
use lanes::Lanes;
use link::Link;
use maintenance::Maintenance;
use meters::Meters;
use outage::Outage;
use recorder::Recorder;

/// Events in hand for each attempt that may be in flight: what is being claimed, waits, and is being
/// recorded while as many are under way.
const IN_HAND_PER_SLOT: usize = 8;
/// Who record outcomes, each on a connection of its own.
const RECORDERS: usize = 2;
/// So many in any case: whole batches.
const FEWEST_IN_HAND: usize = 1024;
/// Connections for what files take to be had.
const FILES: usize = 2;

/// A dispatcher at work.
pub struct Dispatcher {
    /// Where the ops port listens.
    pub ops: SocketAddr,
    stages: JoinSet<()>,
}

/// Starts all stages; they obey `shutdown`. Servers that are away are waited for.
pub async fn start(
    config: Config,
    metrics: PrometheusHandle,
    shutdown: &Shutdown,
) -> anyhow::Result<Dispatcher> {
    let checks = small_pool(&config.database, 1)?;
    let readiness = readiness(checks, redis::pool(&config.redis)?);
    let pool = small_pool(&config.database, FILES)?;
    let ops = ops::serve(config.ops, readiness, metrics, shutdown.clone()).await?;
    tracing::info!(%ops, concurrency = config.concurrency, "dispatcher");

    let meters = Arc::new(Meters::new());
    let in_hand = (config.concurrency * IN_HAND_PER_SLOT).max(FEWEST_IN_HAND);
    // What hangs at its receiver takes nothing from the others.
    let budget = Budget::new(in_hand + lanes::most_laggards(config.concurrency));
    let keyring = Arc::new(config.keyring);
    let endpoints = Arc::new(Endpoints::new(opener(
        &config.sending,
        config.concurrency,
        Arc::clone(&keyring),
    )?));
    let commands = redis::pool(&config.redis)?;
    let listener = Listener::new(redis::client(&config.redis)?);
    let (entries, received) = mpsc::unbounded_channel();
    let shared = recorder::Shared::new(
        Doorbell::new(commands.clone()),
        received,
        Arc::clone(&meters),
    );
    let flow = Arc::new(Flow::new(
        Lanes::new(config.concurrency, in_hand),
        RateLimiter::new(commands),
        config.sending.timeout,
        Inliner::new(config.media, keyring, pool, Arc::clone(&meters))?,
        entries,
        shutdown.clone(),
        meters,
    ));
    let crowd = Arc::default();
    let source = || Source {
        link: Link::lazy(config.database.clone()),
        flow: Arc::clone(&flow),
        endpoints: Arc::clone(&endpoints),
        gate: Gate {
            budget: budget.clone(),
            stuck: shared.stuck(),
            shutdown: shutdown.clone(),
        },
        crowd: Arc::clone(&crowd),
        claim_time: flow::claim_time(config.sending.timeout),
    };
    let links = [(); RECORDERS].map(|()| Link::new(config.database.clone()));
    let engine = Engine {
        ring: Ring::new(source(), listener),
        poller: Poller::new(source()),
        flow,
        maintenance: Maintenance {
            database: config.database.clone(),
            retention_days: config.retention_days,
            shutdown: shutdown.clone(),
        },
        database: config.database,
        shutdown: shutdown.clone(),
    };
    let mut stages = JoinSet::new();
    let tracker = shutdown.tracker();
    stages.spawn(tracker.track_future(engine.run()));
    for link in links {
        let recorder = Recorder::new(link, Arc::clone(&shared));
        stages.spawn(tracker.track_future(until_hard_stop(recorder, shutdown.clone())));
    }
    Ok(Dispatcher { ops, stages })
}

fn opener(
    sending: &SendingConfig,
    concurrency: usize,
    keyring: Arc<Keyring>,
) -> anyhow::Result<Opener> {
    let guard = Guard {
        addresses: sending.addresses.clone(),
        https_only: sending.https_only,
    };
    let connect = CONNECT.min(sending.timeout);
    Ok(Opener {
        clients: Clients::new(guard.clone(), connect, concurrency)?,
        keyring,
        guard,
    })
}

impl Dispatcher {
    /// Waits until all stages have ended, as they do when they are told to stop. An error when one
    /// ended by a panic.
    pub async fn finished(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.stages.join_next().await {
            ended.context("a stage of the dispatcher")?;
        }
        Ok(())
    }
}

/// What takes events in and carries them along.
struct Engine {
    ring: Ring,
    poller: Poller,
    flow: Arc<Flow>,
    maintenance: Maintenance,
    database: DatabaseConfig,
    shutdown: Shutdown,
}

impl Engine {
    async fn run(self) {
        if !schema_is_there(&self.database, &self.shutdown).await {
            return;
        }
        let mut stages = JoinSet::new();
        stages.spawn(self.ring.run());
        stages.spawn(self.poller.run());
        stages.spawn(Arc::clone(&self.flow).watch());
        stages.spawn(self.maintenance.run());
        while let Some(ended) = stages.join_next().await {
            ended.expect("stages don't panic");
        }
        // Nobody takes in any more.
        self.flow.drain();
    }
}

/// Waits for PostgreSQL and its schema; `false` at the soft stop.
async fn schema_is_there(database: &DatabaseConfig, shutdown: &Shutdown) -> bool {
    let mut outage = Outage::new("schema");
    let wait = async {
        while let Err(error) = check_schema(database).await {
            let pause = outage.failed(format!("{error:#}"));
            tokio::time::sleep(pause).await;
        }
        outage.over();
    };
    shutdown.soft().run_until_cancelled(wait).await.is_some()
}

async fn check_schema(database: &DatabaseConfig) -> anyhow::Result<()> {
    let mut conn = postgres::connect(database).await?;
    Ok(migration::check(&mut conn).await?)
}

async fn until_hard_stop(recorder: Recorder, shutdown: Shutdown) {
    if shutdown
        .hard()
        .run_until_cancelled(recorder.run())
        .await
        .is_none()
    {
        tracing::warn!("stopped with outcomes unrecorded: their events will be attempted again");
    }
}

fn small_pool(database: &DatabaseConfig, size: usize) -> anyhow::Result<postgres::Pool> {
    let mut database = database.clone();
    database.pool_size = size;
    postgres::pool(&database)
}

fn readiness(pool: postgres::Pool, redis: redis::Pool) -> Readiness {
    let schema = pool.clone();
    Readiness::new()
        .postgres(pool)
        .check("schema", move || {
            let pool = schema.clone();
            async move {
                let mut conn = pool.get().await.map_err(anyhow::Error::from)?;
                Ok::<(), anyhow::Error>(migration::check(&mut conn).await?)
            }
        })
        .redis(redis)
}
