//! The gateway from its configuration to its end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use diesel_async::AsyncPgConnection;
use domain::migration::{self, SchemaError};
use queue::{ConnectionListener, Doorbell};
use runtime::Context;
use runtime::ops::{self, Readiness};
use runtime::postgres::{self, Pool};
use runtime::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::committer::Committer;
use crate::config::Config;
use crate::lock::{Lock, Standing};
use crate::session::Shared;
use crate::store::inflight::Registry;
use crate::supervisor::Supervisor;
use crate::valve::Valve;

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
    lock: Lock,
}

impl Gateway {
    pub fn new(config: Config) -> anyhow::Result<Self> {
        Ok(Self {
            pool: postgres::pool(&config.database)?,
            redis: runtime::redis::pool(&config.redis)?,
            listener: ConnectionListener::new(runtime::redis::client(&config.redis)?),
            lock: Lock::new(config.database.clone()),
            config,
        })
    }

    /// What it needs to hold sessions.
    pub fn readiness(&self) -> Readiness {
        let (pool, standing) = (self.pool.clone(), self.lock.standing());
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
            .check("lock", move || {
                let standing = shown(&standing);
                async move { standing }
            })
    }

    /// Waits for its turn, holds the sessions until the shutdown, and gives them back.
    pub async fn run(mut self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let turn = async {
            schema(&self.pool).await;
            self.lock.acquire().await
        };
        let conn = tokio::select! {
            conn = turn => conn,
            () = shutdown.soft().cancelled() => return Ok(()),
        };
        tracing::info!("this gateway holds the sessions");
        self.hold(conn, shutdown).await
    }

    async fn hold(self, conn: AsyncPgConnection, shutdown: &Shutdown) -> anyhow::Result<()> {
        let (bell, ringing) = Bell::new(Doorbell::new(self.redis));
        let ringing = tokio::spawn(ringing);
        let valve = Arc::new(Valve::default());
        let (abandoned, finish) = (CancellationToken::new(), CancellationToken::new());
        let (inbox, committer) = Committer::new(
            self.lock,
            conn,
            bell.clone(),
            Arc::clone(&valve),
            finish.clone(),
        );
        let abandon = abandoned.clone();
        let mut committing = tokio::spawn(async move {
            // However it ends: nothing can be committed any more.
            let _abandon = abandon.drop_guard();
            committer.run().await
        });
        let shared = Shared {
            whatsapp: self.config.whatsapp,
            pool: self.pool,
            keyring: self.config.keyring,
            inflight: Arc::new(Registry::default()),
            inbox,
            bell,
            valve,
            abandoned,
        };
        Supervisor::new(shared, self.config.limits)
            .run(self.listener, shutdown)
            .await;
        finish.cancel();
        match timeout(LAST_GROUP, &mut committing).await {
            Ok(ended) => ended.context("the committer")??,
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
        Standing::Held => Ok(()),
        Standing::Waiting => Err("another gateway holds the sessions".to_owned()),
        Standing::Unknown(why) | Standing::Lost(why) => Err(why.clone()),
    }
}
