use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::claim;
use queue::Listener;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use uuid::Uuid;

use super::{BATCH, Gate, Source};
use crate::meters::Meters;
use crate::outage::Outage;

/// How long one wait for the doorbell lasts.
const WAIT: Duration = Duration::from_secs(5);

/// A claim of so many, with more to come, is a crowd.
const CROWD: usize = BATCH / 4;

/// Claims what the doorbell tells of. Without Redis there is nothing to hear, and the poller finds
/// every event some seconds after its commit.
///
/// It listens for the next events while it claims: each of the two waits for its server, and for its turn in
/// a process that is busy with deliveries.
pub(crate) struct Ring {
    ear: Ear,
    claimer: Claimer,
}

struct Ear {
    gate: Gate,
    listener: Listener,
    redis: Outage,
    malformed: u64,
    meters: Arc<Meters>,
}

struct Claimer {
    source: Source,
    postgres: Outage,
}

/// Ids that were popped, of which only we know for the moment, and room for them.
struct Rung {
    ids: Vec<Uuid>,
    room: OwnedSemaphorePermit,
}

impl Ring {
    pub(crate) fn new(source: Source, listener: Listener) -> Self {
        Self {
            ear: Ear {
                gate: source.gate.clone(),
                listener,
                redis: Outage::new("ring"),
                malformed: 0,
                meters: Arc::clone(&source.flow.meters),
            },
            claimer: Claimer {
                source,
                postgres: Outage::new("ring"),
            },
        }
    }

    /// Until the soft stop.
    pub(crate) async fn run(self) {
        let (sender, receiver) = mpsc::channel(1);
        tokio::join!(self.ear.listen(sender), self.claimer.claim_all(receiver));
    }
}

impl Ear {
    async fn listen(mut self, rung: mpsc::Sender<Rung>) {
        let soft = self.gate.shutdown.soft().clone();
        // At most one batch waits for its claim.
        while let Ok(place) = rung.reserve().await
            && let Some(room) = self.gate.room().await
        {
            let heard = self.listener.wait(room.num_permits(), WAIT);
            match soft.run_until_cancelled(heard).await {
                None => break,
                // The listener waits by itself before it tries again.
                Some(Err(error)) => drop(self.redis.failed(error)),
                Some(Ok(ids)) => {
                    self.redis.over();
                    self.count_malformed();
                    if !ids.is_empty() {
                        place.send(Rung { ids, room });
                    }
                }
            }
        }
    }

    fn count_malformed(&mut self) {
        let malformed = self.listener.malformed();
        let more = malformed - self.malformed;
        self.meters.malformed_rings.increment(more);
        self.malformed = malformed;
    }
}

impl Claimer {
    async fn claim_all(mut self, mut rung: mpsc::Receiver<Rung>) {
        while let Some(rung) = rung.recv().await {
            self.claim(rung).await;
        }
    }

    /// Tries until these are claimed. If we stop, it is to give them back, so that they are due at once; what
    /// can't be claimed then the poller finds.
    async fn claim(&mut self, Rung { ids, room }: Rung) {
        let seconds = self.source.claim_time.as_secs_f64();
        loop {
            // It may be one of these that an outcome in hand is of.
            let stopping = self.source.gate.recording().await.is_none();
            let (token, asked) = (Uuid::new_v4(), Instant::now());
            let claim = async |conn: &mut _| claim::claim(conn, &ids, token, seconds).await;
            match self.source.claim(claim).await {
                Ok(events) => {
                    self.postgres.over();
                    self.source.flow.meters.rung.increment(events.len() as u64);
                    // Not so where others claimed most of these before, or where we had little room.
                    if ids.len() == room.num_permits() && events.len() >= CROWD {
                        self.source.crowd.seen();
                    }
                    return self.source.hand_on(events, token, asked, room);
                }
                Err(error) if stopping => {
                    self.postgres.failed(error);
                    return;
                }
                Err(error) => {
                    let pause = self.postgres.failed(error);
                    self.source.pause(pause).await;
                }
            }
        }
    }
}
