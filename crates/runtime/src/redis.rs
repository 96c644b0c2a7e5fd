//! Connections to Redis for short commands. Every command is bounded in time. A blocking pop needs
//! a connection of its own (see [`client`]): on these it would be cut off in mid-wait.

use std::time::Duration;

use anyhow::Context;
use deadpool_redis::{Manager, Runtime};
use redis::AsyncConnectionConfig;

use crate::config::RedisConfig;

/// A pool of connections; it opens them when they are asked for.
pub type Pool = deadpool_redis::Pool;

const CONNECT: Duration = Duration::from_secs(2);
const RESPONSE: Duration = Duration::from_secs(2);
const WAIT: Duration = Duration::from_secs(2);

/// A pool that has not connected yet.
pub fn pool(config: &RedisConfig) -> anyhow::Result<Pool> {
    let timeouts = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(RESPONSE));
    let manager = Manager::new_with_config(config.connection.clone(), timeouts)
        .context("the address of Redis")?;
    Pool::builder(manager)
        .max_size(config.pool_size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(WAIT))
        .create_timeout(Some(CONNECT))
        .recycle_timeout(Some(RESPONSE))
        .build()
        .context("the Redis pool")
}

/// The address alone, for connections with timeouts of their own: blocking pops, subscriptions.
pub fn client(config: &RedisConfig) -> anyhow::Result<redis::Client> {
    redis::Client::open(config.connection.clone()).context("the address of Redis")
}
