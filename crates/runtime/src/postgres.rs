//! Connections to PostgreSQL. Each is bounded in time: a server that is gone, or that accepts and
//! then says nothing, is an error after some seconds, never a hang. What runs on a connection is
//! not: a caller that must not wait for a stopped server puts a time limit on its own query.

mod endpoint;
mod verifier;

use std::error::Error;
use std::time::Duration;

use anyhow::Context;
use deadpool::Runtime;
use diesel::{ConnectionError, ConnectionResult};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use tokio::time::timeout;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::DatabaseConfig;
pub(crate) use endpoint::{Endpoint, InvalidUrl};

/// A pool of connections; it opens them when they are asked for.
pub type Pool = diesel_async::pooled_connection::deadpool::Pool<AsyncPgConnection>;

/// From the first packet to a connection that takes queries.
const CONNECT: Duration = Duration::from_secs(5);
/// For a free connection while all are in use.
const WAIT: Duration = Duration::from_secs(5);
/// For the check that a connection taken from the pool still answers.
const CHECK: Duration = Duration::from_secs(2);

/// A process that has stopped in the middle of a transaction is ended by PostgreSQL, or its locks would stop the
/// others. Statements are planned once and never compiled: they find rows by key, so that nothing about their values asks
/// for another plan, and to plan over some dozens of partitions takes longer than most of them run.
const SESSION: &str = "SET idle_in_transaction_session_timeout = '5s'; SET jit = off;
    SET plan_cache_mode = force_generic_plan";

/// A pool that has not connected yet.
pub fn pool(config: &DatabaseConfig) -> anyhow::Result<Pool> {
    let endpoint = config.endpoint.clone();
    let mut manager = ManagerConfig::default();
    // The default check, a query per checkout, stays: it is what finds a server that was replaced.
    manager.custom_setup = Box::new(move |_| {
        let endpoint = endpoint.clone();
        async move { establish(&endpoint).await }.boxed()
    });
    Pool::builder(AsyncDieselConnectionManager::new_with_config("", manager))
        .max_size(config.pool_size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(WAIT))
        .create_timeout(Some(CONNECT))
        .recycle_timeout(Some(CHECK))
        .build()
        .context("the PostgreSQL pool")
}

/// One connection outside of any pool, for what must keep a session: locks, `LISTEN`, migrations.
pub async fn connect(config: &DatabaseConfig) -> ConnectionResult<AsyncPgConnection> {
    let connected = timeout(CONNECT, establish(&config.endpoint)).await;
    connected.unwrap_or_else(|_| {
        let problem = format!("no connection within {} s", CONNECT.as_secs());
        Err(ConnectionError::BadConnection(problem))
    })
}

async fn establish(endpoint: &Endpoint) -> ConnectionResult<AsyncPgConnection> {
    let tls = verifier::client_config(endpoint.trust())
        .map_err(|error| ConnectionError::BadConnection(format!("sslrootcert: {error:#}")))?;
    let connected = endpoint.config().connect(MakeRustlsConnect::new(tls)).await;
    let (client, connection) = connected.map_err(|error| bad_connection(&error))?;
    let mut conn = AsyncPgConnection::try_from_client_and_connection(client, connection).await?;
    let set = conn.batch_execute(SESSION).await;
    set.map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
    Ok(conn)
}

/// tokio-postgres says "error connecting to server" and keeps the reason in its sources.
fn bad_connection(error: &tokio_postgres::Error) -> ConnectionError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    ConnectionError::BadConnection(text)
}
