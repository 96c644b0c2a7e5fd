use std::time::{Duration, Instant};

use domain::claim;
use queue::Listener;
use uuid::Uuid;

use super::Source;
use crate::outage::Outage;

/// How long one wait for the doorbell lasts.
const WAIT: Duration = Duration::from_secs(5);

/// Claims what the doorbell tells of. Without Redis there is nothing to hear, and the poller finds
/// every event some seconds after its commit.
pub(crate) struct Ring {
    source: Source,
    listener: Listener,
    redis: Outage,
    postgres: Outage,
    malformed: u64,
}

impl Ring {
    pub(crate) fn new(source: Source, listener: Listener) -> Self {
        Self {
            source,
            listener,
            redis: Outage::new("ring"),
            postgres: Outage::new("ring"),
            malformed: 0,
        }
    }

    /// Until the soft stop.
    pub(crate) async fn run(mut self) {
        let soft = self.source.shutdown.soft().clone();
        while let Some(room) = self.source.room().await {
            let heard = self.listener.wait(room.num_permits(), WAIT);
            match soft.run_until_cancelled(heard).await {
                None => break,
                // The listener waits by itself before it tries again.
                Some(Err(error)) => drop(self.redis.failed(error)),
                Some(Ok(ids)) => {
                    self.redis.over();
                    self.count_malformed();
                    if !ids.is_empty() {
                        self.claim(&ids, room).await;
                    }
                }
            }
        }
    }

    /// Tries until these are claimed. They were popped, and only we know of them for the moment; if
    /// we stop, the poller finds them.
    async fn claim(&mut self, ids: &[Uuid], room: tokio::sync::OwnedSemaphorePermit) {
        let seconds = self.source.claim_time.as_secs_f64();
        while !self.source.shutdown.soft().is_cancelled() {
            let (token, asked) = (Uuid::new_v4(), Instant::now());
            let claim = async |conn: &mut _| claim::claim(conn, ids, token, seconds).await;
            match self.source.claim(claim).await {
                Ok(events) => {
                    self.postgres.over();
                    self.source.flow.meters.rung.increment(events.len() as u64);
                    // Where most were claimed by others before, it is of no use to leave more to us.
                    if ids.len() == room.num_permits() && events.len() > ids.len() / 2 {
                        self.source.crowd.seen();
                    }
                    return self.source.hand_on(events, token, asked, room);
                }
                Err(error) => {
                    let pause = self.postgres.failed(error);
                    self.source.pause(pause).await;
                }
            }
        }
    }

    fn count_malformed(&mut self) {
        let malformed = self.listener.malformed();
        let more = malformed - self.malformed;
        self.source.flow.meters.malformed_rings.increment(more);
        self.malformed = malformed;
    }
}
