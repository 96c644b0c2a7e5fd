//! What all rows of the dispatcher are measured on: durable servers and the light receiver.

use std::time::Duration;

use anyhow::{Context, ensure};
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use queue::Doorbell;
use runtime::config::RedisConfig;
use rustix::process::Pid;
use testkit::{Database, Process, Program, Server, Servers, eventually};

use crate::seed::KEYS;
use crate::sink::Sink;

pub(crate) struct Stage {
    pub(crate) servers: Servers,
    pub(crate) sink: Sink,
}

impl Stage {
    /// The receiver has so many hosts besides 127.0.0.1.
    pub(crate) async fn start(hosts: u16) -> anyhow::Result<Self> {
        let (servers, sink) = tokio::join!(Servers::start_durable(), Sink::start(hosts));
        let sink = sink?;
        Ok(Self { servers, sink })
    }

    /// An empty database, an empty Redis, and a receiver that has forgotten.
    pub(crate) async fn clear(&self) -> anyhow::Result<Database> {
        self.sink.reset().await?;
        let client = redis::Client::open(self.servers.redis_url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("FLUSHALL").exec_async(&mut connection).await?;
        Ok(self.servers.database().await)
    }

    pub(crate) fn doorbell(&self) -> anyhow::Result<Doorbell> {
        let config = RedisConfig::from_url(self.servers.redis_url())?;
        Ok(Doorbell::new(runtime::redis::pool(&config)?))
    }

    /// Starts a dispatcher and waits until it is ready; work that is there it takes up at once.
    pub(crate) async fn dispatcher(&self, database: &Database) -> Process {
        Program::service("recado-dispatcher")
            .env("DATABASE_URL", database.url())
            .env("REDIS_URL", self.servers.redis_url())
            .env("ENCRYPTION_KEYS", KEYS)
            .env("WEBHOOK_ALLOWED_CIDRS", "127.0.0.0/8")
            .start()
            .await
    }

    /// All that work here, by name.
    pub(crate) fn processes(&self, dispatchers: &[Process]) -> Vec<(String, Pid)> {
        let named = |name: &str, pid| (name.to_owned(), pid);
        let mut all: Vec<_> = dispatchers
            .iter()
            .zip(1..)
            .map(|(process, number)| named(&format!("dispatcher-{number}"), process.pid()))
            .collect();
        all.push(named("PostgreSQL", self.servers.pid(Server::Postgres)));
        all.push(named("Redis", self.servers.pid(Server::Redis)));
        all.push(named("receiver", self.sink.pid()));
        all
    }
}

/// Ends dispatchers in good order.
pub(crate) async fn stop(dispatchers: Vec<Process>) -> anyhow::Result<()> {
    for mut dispatcher in dispatchers {
        let status = dispatcher.stop().await;
        ensure!(status.success(), "a dispatcher ended with {status}");
    }
    Ok(())
}

/// Waits until nothing is pending.
pub(crate) async fn settled(conn: &mut AsyncPgConnection, limit: Duration) {
    eventually(limit, async || {
        let query =
            "SELECT count(*) AS count FROM whatsapp_webhook_events WHERE status = 'pending'";
        match count(conn, query).await {
            Ok(0) => Ok(()),
            Ok(pending) => Err(format!("{pending} events are pending")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await;
}

/// Fails unless so many events are there, and each was delivered with one attempt, which is on record.
pub(crate) async fn audit(conn: &mut AsyncPgConnection, events: usize) -> anyhow::Result<()> {
    let delivered = count(
        conn,
        "SELECT count(*) AS count FROM whatsapp_webhook_events
         WHERE status = 'delivered' AND attempt_count = 1 AND http_status = 200 AND response = 'ok'",
    );
    let delivered = delivered.await?;
    let attempted = count(
        conn,
        "SELECT count(DISTINCT event_id) AS count FROM whatsapp_delivery_attempts
         WHERE attempt = 1 AND http_status = 200 AND response = 'ok' AND NOT superseded",
    );
    let attempted = attempted.await?;
    let attempts = "SELECT count(*) AS count FROM whatsapp_delivery_attempts";
    let attempts = count(conn, attempts).await?;
    let expected = i64::try_from(events)?;
    ensure!(
        [delivered, attempted, attempts] == [expected; 3],
        "of {events} events {delivered} are delivered, and {attempted} have an attempt that says so; \
         there are {attempts} attempts"
    );
    Ok(())
}

async fn count(conn: &mut AsyncPgConnection, query: &str) -> anyhow::Result<i64> {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }
    let counted: Count = sql_query(query).get_result(conn).await.context("a count")?;
    Ok(counted.count)
}
