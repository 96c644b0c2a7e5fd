//! PostgreSQL and Redis that are there, gone, or silent.

use std::time::{Duration, Instant};

use diesel::sql_query;
use diesel_async::RunQueryDsl;
use runtime::config::{DatabaseConfig, RedisConfig};
use runtime::{postgres, redis};
use testkit::{Database, Server, Servers, eventually};
use tokio::net::TcpListener;

/// A server that takes connections and never says a word.
async fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn a_silent_postgresql_is_an_error_within_seconds() {
    let (_listener, port) = silent().await;
    let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable");
    let config = DatabaseConfig::from_url(&url).unwrap();
    let pool = postgres::pool(&config).unwrap();
    let start = Instant::now();
    let (pooled, single) = tokio::join!(pool.get(), postgres::connect(&config));
    assert!(pooled.is_err() && single.is_err());
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_silent_redis_is_an_error_within_seconds() {
    let (_listener, port) = silent().await;
    let config = RedisConfig::from_url(&format!("redis://127.0.0.1:{port}")).unwrap();
    let start = Instant::now();
    assert!(redis::pool(&config).unwrap().get().await.is_err());
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_pool_that_is_used_up_is_an_error_within_seconds() {
    let database = Database::create().await;
    let mut config = database.config();
    config.pool_size = 1;
    let pool = postgres::pool(&config).unwrap();
    let _held = pool.get().await.unwrap();
    let start = Instant::now();
    assert!(pool.get().await.is_err());
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_wrong_login_is_an_error_with_a_reason_and_without_the_password() {
    let database = Database::create().await;
    let (before, name) = database.url().rsplit_once('/').unwrap();
    let server = before.rsplit(['/', '@']).next().unwrap();
    let url = format!("postgres://nobody_at_all:hunter2@{server}/{name}");
    let error = postgres::connect(&DatabaseConfig::from_url(&url).unwrap())
        .await
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(
        text.contains("nobody_at_all") && !text.contains("hunter2"),
        "{text}"
    );
}

#[tokio::test]
async fn pools_recover_from_a_restart_of_their_servers() {
    let servers = Servers::start().await;
    let postgres =
        postgres::pool(&DatabaseConfig::from_url(servers.database_url()).unwrap()).unwrap();
    let redis = redis::pool(&RedisConfig::from_url(servers.redis_url()).unwrap()).unwrap();
    let answers = async || {
        let mut connection = postgres.get().await.map_err(|error| error.to_string())?;
        let asked = sql_query("SELECT 1").execute(&mut connection).await;
        asked.map_err(|error| error.to_string())?;
        let mut connection = redis.get().await.map_err(|error| error.to_string())?;
        let asked = ::redis::cmd("PING").exec_async(&mut connection).await;
        asked.map_err(|error| error.to_string())
    };
    answers().await.unwrap();

    servers.restart(Server::Postgres).await;
    servers.restart(Server::Redis).await;
    eventually(Duration::from_secs(10), &answers).await;

    // Held, not merely refused: the connection in the pool looks alive.
    servers.freeze(Server::Redis).await;
    assert!(answers().await.is_err());
    servers.thaw(Server::Redis);
    eventually(Duration::from_secs(10), &answers).await;
}
