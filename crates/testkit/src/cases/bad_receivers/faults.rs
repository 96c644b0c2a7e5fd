//! What is done to the dispatchers and to their servers, all at the same time and at random moments.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rand::RngExt;
use tokio::time::sleep;

use crate::Process;
use crate::cases::oversleep::until_taken;
use crate::servers::{Server, Servers};

/// For so long at most Redis is away, or a dispatcher that was killed.
const REDIS_AWAY: Duration = Duration::from_secs(20);
const DISPATCHER_AWAY: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A dispatcher was killed.
    Kill,
    /// A dispatcher stood still until its claims had been taken.
    Stop,
    /// Redis forgot everything.
    Flush,
    RedisAway,
    PostgresAway,
}

/// A fault, and how long it lasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strike {
    pub(super) kind: Kind,
    pub(super) from: DateTime<Utc>,
    pub(super) to: DateTime<Utc>,
}

impl Strike {
    fn since(kind: Kind, from: DateTime<Utc>) -> Self {
        Self {
            kind,
            from,
            to: Utc::now(),
        }
    }
}

/// Strikes for so long, and until what was begun is over. At the end everything runs.
pub(super) async fn inflict(
    dispatchers: &mut [Process],
    servers: &Servers,
    time: Duration,
) -> anyhow::Result<Vec<Strike>> {
    let until = Instant::now() + time;
    // One is the sleeper, and the others die.
    let (sleepers, mortals) = dispatchers.split_at_mut(1);
    let (stops, kills, servers) = tokio::join!(
        stop_too_long(&sleepers[0], servers, until, time / 12),
        kill(mortals, until, time / 12),
        take_servers_away(servers, time),
    );
    Ok([stops, kills, servers?].concat())
}

async fn stop_too_long(
    dispatcher: &Process,
    servers: &Servers,
    until: Instant,
    rest: Duration,
) -> Vec<Strike> {
    let mut strikes = Vec::new();
    while Instant::now() < until {
        sleep(random(rest)).await;
        dispatcher.freeze().await;
        let (from, stopped) = (Utc::now(), Instant::now());
        until_taken(servers.database_url(), stopped).await;
        dispatcher.thaw();
        strikes.push(Strike::since(Kind::Stop, from));
    }
    strikes
}

async fn kill(dispatchers: &mut [Process], until: Instant, rest: Duration) -> Vec<Strike> {
    let mut strikes = Vec::new();
    while Instant::now() < until {
        sleep(random(rest)).await;
        let victim = rand::rng().random_range(0..dispatchers.len());
        let dispatcher = &mut dispatchers[victim];
        let from = Utc::now();
        dispatcher.kill().await;
        strikes.push(Strike::since(Kind::Kill, from));
        sleep(random(rest.min(DISPATCHER_AWAY))).await;
        dispatcher.start_again().await;
    }
    strikes
}

async fn take_servers_away(servers: &Servers, time: Duration) -> anyhow::Result<Vec<Strike>> {
    let away = REDIS_AWAY.min(time / 6);
    let turns = [
        Kind::Flush,
        Kind::PostgresAway,
        Kind::RedisAway,
        Kind::Flush,
        Kind::PostgresAway,
        Kind::Flush,
    ];
    let rest = time.saturating_sub(away) / turns.len() as u32;
    let mut strikes = Vec::new();
    for (kind, number) in turns.into_iter().zip(0..) {
        sleep(random(rest)).await;
        let from = Utc::now();
        match kind {
            Kind::Flush => flush(servers).await?,
            Kind::RedisAway => {
                servers.stop(Server::Redis).await;
                sleep(away).await;
                servers.resume(Server::Redis).await;
            }
            // Once in good order, once not.
            _ if number < 3 => servers.restart(Server::Postgres).await,
            _ => {
                servers.crash(Server::Postgres).await;
                servers.resume(Server::Postgres).await;
            }
        }
        strikes.push(Strike::since(kind, from));
    }
    Ok(strikes)
}

async fn flush(servers: &Servers) -> anyhow::Result<()> {
    let client = redis::Client::open(servers.redis_url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    Ok(redis::cmd("FLUSHALL").exec_async(&mut connection).await?)
}

/// From half of it to one and a half.
fn random(time: Duration) -> Duration {
    time.mul_f64(0.5 + rand::random::<f64>())
}
