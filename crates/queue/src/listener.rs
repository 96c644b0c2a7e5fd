//! The side that waits. A listener has a connection of its own, since a blocking pop outlasts the
//! time limits of pooled ones, and renews it by itself: an error tells the caller that a wait
//! ended early, and the next wait first pauses a little and then connects anew.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Client, RedisError};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::keys;

/// What Redis may take for anything beyond the time that it is asked to block.
const ANSWER: Duration = Duration::from_secs(2);
/// Redis rounds shorter ones down, and 0 would block for ever.
const SHORTEST_BLOCK: Duration = Duration::from_millis(10);

/// Why a wait ended without the doorbell and before its time.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("Redis did not answer in time")]
    TimedOut,
    #[error("Redis closed the subscription")]
    Closed,
}

/// Pauses between attempts to connect: none before the first, then 50 ms doubled up to 2 s.
#[derive(Debug, Default)]
struct Backoff(u32);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);

    fn pause(&self) -> Duration {
        match self.0 {
            0 => Duration::ZERO,
            failures => (Self::FIRST * 2_u32.pow((failures - 1).min(10))).min(Self::LONGEST),
        }
    }

    fn failed(&mut self) {
        self.0 = self.0.saturating_add(1);
    }
}

/// Waits for announced events.
pub struct Listener {
    client: Client,
    connection: Option<MultiplexedConnection>,
    backoff: Backoff,
    malformed: u64,
}

impl Listener {
    /// A listener that connects at its first wait.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            connection: None,
            backoff: Backoff::default(),
            malformed: 0,
        }
    }

    /// Up to `max` ids, as soon as there are any; none when `block` passes without a ring.
    ///
    /// An id is handed out once. Dropping this future in mid-wait closes the connection, so that
    /// no id is popped for a caller that has gone; one may still be lost in that moment, as in
    /// any crash, and is then found by the poller.
    pub async fn wait(&mut self, max: usize, block: Duration) -> Result<Vec<Uuid>, WaitError> {
        // Taken out and put back only after a whole answer: see above.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        match pop(&mut connection, max, block.max(SHORTEST_BLOCK)).await {
            Ok(entries) => {
                self.connection = Some(connection);
                self.backoff = Backoff::default();
                Ok(self.ids(&entries))
            }
            Err(error) => {
                self.backoff.failed();
                Err(error)
            }
        }
    }

    /// How many entries of the list were no ids, and were skipped, since the start.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection, WaitError> {
        sleep(self.backoff.pause()).await;
        // The time limit is put on each wait as a whole: see `pop`.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(None);
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let connected = match timeout(ANSWER, connecting).await {
            Ok(connected) => connected.map_err(WaitError::from),
            Err(_) => Err(WaitError::TimedOut),
        };
        connected.inspect_err(|_| self.backoff.failed())
    }

    fn ids(&mut self, entries: &[Vec<u8>]) -> Vec<Uuid> {
        let ids: Vec<_> = entries
            .iter()
            .filter_map(|entry| Uuid::from_slice(entry).ok())
            .collect();
        self.malformed += (entries.len() - ids.len()) as u64;
        ids
    }
}

/// One round trip: Redis looks at the second command when the first is through with blocking.
async fn pop(
    connection: &mut MultiplexedConnection,
    max: usize,
    block: Duration,
) -> Result<Vec<Vec<u8>>, WaitError> {
    let mut pops = redis::pipe();
    pops.cmd("BLPOP")
        .arg(keys::EVENTS_DUE)
        .arg(block.as_secs_f64());
    if max > 1 {
        pops.cmd("LPOP").arg(keys::EVENTS_DUE).arg(max - 1);
    }
    type First = Option<(String, Vec<u8>)>;
    type Rest = Option<Vec<Vec<u8>>>;
    let answer = async {
        if max > 1 {
            pops.query_async::<(First, Rest)>(connection).await
        } else {
            pops.query_async::<(First,)>(connection)
                .await
                .map(|(first,)| (first, None))
        }
    };
    let (first, rest) = timeout(block + ANSWER, answer)
        .await
        .map_err(|_| WaitError::TimedOut)??;
    let first = first.map(|(_key, entry)| entry);
    Ok(first.into_iter().chain(rest.unwrap_or_default()).collect())
}

/// What a gateway is rung for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Something is wanted of some connection: all are to be looked at, also for what is to be sent.
    Wanted,
    /// There is something to send over these.
    ToSend(Vec<Uuid>),
}

impl News {
    fn of(message: &redis::Msg) -> Self {
        let text = message.get_payload_bytes();
        match Uuid::try_parse_ascii(text) {
            Ok(connection) => Self::ToSend(vec![connection]),
            Err(_) => Self::Wanted,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::ToSend(mut some), Self::ToSend(more)) => {
                some.extend(more);
                Self::ToSend(some)
            }
            _ => Self::Wanted,
        }
    }
}

/// Waits for news about connections. Every listener hears every ring.
pub struct ConnectionListener {
    client: Client,
    subscription: Option<PubSub>,
    backoff: Backoff,
}

impl ConnectionListener {
    /// A listener that subscribes at its first wait.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            subscription: None,
            backoff: Backoff::default(),
        }
    }

    /// What it was rung for before `block` passed. Rings that came together count as one. A
    /// subscription made anew counts as a ring, since one may have been missed meanwhile.
    pub async fn wait(&mut self, block: Duration) -> Result<Option<News>, WaitError> {
        let result = self.next(block).await;
        match result {
            Ok(_) => self.backoff = Backoff::default(),
            Err(_) => {
                self.subscription = None;
                self.backoff.failed();
            }
        }
        result
    }

    async fn next(&mut self, block: Duration) -> Result<Option<News>, WaitError> {
        let Some(subscription) = &mut self.subscription else {
            sleep(self.backoff.pause()).await;
            self.subscription = Some(answered(self.subscribe()).await?);
            return Ok(Some(News::Wanted));
        };
        let news = {
            let mut messages = subscription.on_message();
            match timeout(block, messages.next()).await {
                Ok(None) => return Err(WaitError::Closed),
                Ok(Some(message)) => {
                    let mut news = News::of(&message);
                    while let Some(Some(message)) = messages.next().now_or_never() {
                        news = news.and(News::of(&message));
                    }
                    Some(news)
                }
                Err(_) => None,
            }
        };
        if news.is_none() {
            // A peer that vanished says nothing: ask whether it is there.
            answered(subscription.ping::<redis::Value>()).await?;
        }
        Ok(news)
    }

    async fn subscribe(&self) -> Result<PubSub, RedisError> {
        let mut subscription = self.client.get_async_pubsub().await?;
        subscription.subscribe(keys::CONNECTIONS).await?;
        Ok(subscription)
    }
}

async fn answered<T>(
    question: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, WaitError> {
    timeout(ANSWER, question)
        .await
        .map_err(|_| WaitError::TimedOut)?
        .map_err(WaitError::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_to_look_at_all_need_not_know_of_one() {
        let to_send =
            |ids: &[u128]| News::ToSend(ids.iter().copied().map(Uuid::from_u128).collect());
        assert_eq!(to_send(&[1]).and(to_send(&[2])), to_send(&[1, 2]));
        assert_eq!(to_send(&[1]).and(News::Wanted), News::Wanted);
        assert_eq!(News::Wanted.and(to_send(&[1])), News::Wanted);
    }

    #[test]
    fn pauses_grow_to_two_seconds_and_stay_there() {
        let pause = |failures| Backoff(failures).pause().as_millis();
        assert_eq!(
            [0, 1, 2, 3, 6, 7, 40, u32::MAX].map(pause),
            [0, 50, 100, 200, 1600, 2000, 2000, 2000]
        );
    }
}
