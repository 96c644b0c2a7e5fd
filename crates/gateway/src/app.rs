//! The gateway from its configuration to its end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::migration::{self, SchemaError};
use queue::{ConnectionListener, Doorbell};
use runtime::Context;
use runtime::ops::{self, Readiness};
use runtime::postgres::{self, Pool};
use runtime::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::bell::Bell;
use crate::committer::Committer;
use crate::config::Config;
use crate::files::Files;
use crate::gate::{Confirmed, Turns};
use crate::pace::Pace;
use crate::session::Shared;
use crate::store::bodies::Bodies;
use crate::store::inflight::Registry;
use crate::store::ratchets::Ratchets;
use crate::supervisor::{Standing, Supervisor};
use crate::valve::Valve;
use crate::version::Versions;

const SCHEMA_POLL: Duration = Duration::from_secs(1);
/// What the last group may take once all sessions have ended.
const LAST_GROUP: Duration = Duration::from_secs(3);

/// The body of the process.
pub async fn run(context: Context<Config>) -> anyhow::Result<()> {
    let Context {
        config,
        shutdown,
        metrics,
    } = context;
    let ops = config.ops;
    let gateway = Gateway::new(config)?;
    let address = ops::serve(ops, gateway.readiness(), metrics, shutdown.clone()).await?;
    tracing::info!(%address, "the ops port listens");
    gateway.run(&shutdown).await
}

/// A gateway that has not connected to anything yet.
pub struct Gateway {
    config: Config,
    pool: Pool,
    redis: runtime::redis::Pool,
    listener: ConnectionListener,
    standing: watch::Sender<Standing>,
}

impl Gateway {
    pub fn new(config: Config) -> anyhow::Result<Self> {
        Ok(Self {
            pool: postgres::pool(&config.database)?,
            redis: runtime::redis::pool(&config.redis)?,
            listener: ConnectionListener::new(runtime::redis::client(&config.redis)?),
            standing: watch::Sender::new(Standing::CutOff("not asked yet".to_owned())),
            config,
        })
    }

    /// What it needs to hold sessions.
    pub fn readiness(&self) -> Readiness {
        let (pool, standing) = (self.pool.clone(), self.standing.subscribe());
        Readiness::new()
            .postgres(self.pool.clone())
            .redis(self.redis.clone())
            .check("schema", move || {
                let pool = pool.clone();
                async move {
                    check_schema(&pool)
                        .await
                        .map_err(|error| format!("{error:#}"))
                }
            })
            .check("lease", move || {
                let standing = shown(&standing);
                async move { standing }
            })
    }

    /// Holds sessions until the shutdown, and gives them back.
    pub async fn run(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let keyring = self.config.keyring;
        let files = Files::new(self.pool.clone(), Arc::clone(&keyring), self.config.sources)?;
        let doorbell = Doorbell::new(self.redis.clone());
        let (bell, ringing) = Bell::new(doorbell.clone());
        let ringing = tokio::spawn(ringing);
        let valve = Arc::new(Valve::default());
        let (abandoned, finish) = (CancellationToken::new(), CancellationToken::new());
        let versions = Versions::new(&self.config.whatsapp);
        let begin = async {
            schema(&self.pool).await;
            if self.config.whatsapp.version.is_none() {
                versions.recall(&self.pool).await;
            }
            let database = self.config.database.clone();
            Committer::start(database, bell.clone(), Arc::clone(&valve), finish.clone()).await
        };
        let (inbox, committer) = tokio::select! {
            begun = begin => begun,
            () = shutdown.soft().cancelled() => return Ok(()),
        };
        let abandon = abandoned.clone();
        let mut committing = tokio::spawn(async move {
            // However it ends: nothing can be committed any more.
            let _abandon = abandon.drop_guard();
            committer.run().await;
        });
        let inflight = Arc::new(Registry::default());
        let ratchets = Ratchets::new(self.pool.clone());
        let bodies = Bodies::new(self.pool.clone(), Arc::clone(&inflight), Arc::clone(&valve));
        let page = self.config.whatsapp.version_url.clone();
        let keeping = page.map(|page| {
            let keep = versions
                .clone()
                .keep(page, self.pool.clone(), doorbell.clone());
            AbortOnDropHandle::new(tokio::spawn(keep))
        });
        let shared = Shared {
            versions,
            whatsapp: self.config.whatsapp,
            pool: self.pool,
            keyring,
            files: Arc::new(files),
            inflight,
            bodies,
            ratchets,
            inbox,
            bell,
            doorbell,
            valve,
            confirmed: Confirmed::default(),
            turns: Turns::new(Pace::new(self.config.limits.connect_rate)),
            limits: self.config.limits,
            abandoned,
        };
        let database = self.config.database;
        Supervisor::new(shared, database, self.standing)
            .run(self.listener, shutdown)
            .await;
        drop(keeping);
        finish.cancel();
        match timeout(LAST_GROUP, &mut committing).await {
            Ok(ended) => ended.context("the committer")?,
            // Nobody waits for what it has left, and none of that is acknowledged.
            Err(_) => {
                tracing::warn!(
                    "PostgreSQL did not answer to the last commit within {LAST_GROUP:?}"
                );
                committing.abort();
            }
        }
        ringing.abort();
        Ok(())
    }
}

async fn schema(pool: &Pool) {
    let mut told = false;
    while let Err(error) = check_schema(pool).await {
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("waiting for the database: {error:#}");
        }
        tokio::time::sleep(SCHEMA_POLL).await;
    }
}

async fn check_schema(pool: &Pool) -> anyhow::Result<()> {
    let mut conn = pool.get().await?;
    migration::check(&mut conn)
        .await
        .map_err(|error| match error {
            SchemaError::Query(error) => error.into(),
            error => error.into(),
        })
}

fn shown(standing: &watch::Receiver<Standing>) -> Result<(), String> {
    match &*standing.borrow() {
        Standing::Holds => Ok(()),
        Standing::CutOff(why) => Err(why.clone()),
    }
}
