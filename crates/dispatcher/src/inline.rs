//! Files of messages within the delivery, as base64, for webhooks that want them there. An attempt waits for
//! its files for some seconds at the most; an event whose file is not there by then goes without it, and says
//! why. What was brought is put into the claimed event in hand, and is stored nowhere.

mod circuit;
mod memory;
mod mention;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use diesel_async::pooled_connection::deadpool::PoolError;
use domain::claim::Claimed;
use domain::keyring::{Keyring, SealError};
use domain::media::File;
use futures_util::{FutureExt, StreamExt, stream};
use media::{Host, HostConfig};
use runtime::postgres::Pool;
use thiserror::Error;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use crate::flow::Work;
use crate::meters::Meters;
use circuit::Circuit;
pub(crate) use memory::Held;
use memory::Memory;
pub(crate) use mention::Mention;

/// What an attempt waits for its files.
const FETCH: Duration = Duration::from_secs(5);
/// A media host that says nothing for so long is away, and so is one that does not get done in it.
const SILENCE: Duration = Duration::from_secs(3);
/// What an attempt waits for memory.
const ROOM: Duration = Duration::from_millis(250);
/// Files of one attempt that are brought at once.
const AT_ONCE: usize = 4;

/// What became of a file that a delivery was to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Inlined,
    /// For the webhook.
    TooLarge,
    /// WhatsApp has it no more, or we have no more what it takes to ask for it.
    Gone,
    /// It could not be brought in time.
    Unavailable,
}

impl Outcome {
    pub(crate) const ALL: [Self; 4] =
        [Self::Inlined, Self::TooLarge, Self::Gone, Self::Unavailable];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Inlined => "inlined",
            Self::TooLarge => "too_large",
            Self::Gone => "gone",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why a delivery goes without its file.
#[derive(Debug, Error)]
enum Problem {
    #[error("it is larger than the webhook takes")]
    TooLarge,
    #[error("its message is kept no more")]
    Forgotten,
    #[error("there was no room for it in time")]
    NoRoom,
    #[error("PostgreSQL")]
    Pool(#[from] PoolError),
    #[error("PostgreSQL")]
    Query(#[from] diesel::result::Error),
    #[error("what it takes to have it can't be opened")]
    Sealed(#[from] SealError),
    #[error("the media host is away and was not asked")]
    NotAsked,
    #[error(transparent)]
    Host(#[from] media::Error),
    #[error("it did not come in time")]
    Late,
    #[error("a panic")]
    Panic,
}

impl Problem {
    fn outcome(&self) -> Outcome {
        match self {
            Self::TooLarge => Outcome::TooLarge,
            Self::Forgotten | Self::Host(media::Error::Gone) => Outcome::Gone,
            _ => Outcome::Unavailable,
        }
    }
}

/// Brings files.
pub(crate) struct Inliner {
    /// For the rows of messages.
    pool: Pool,
    keyring: Arc<Keyring>,
    host: Host,
    circuit: Circuit,
    memory: Memory,
    meters: Arc<Meters>,
}

impl Inliner {
    pub(crate) fn new(
        config: HostConfig,
        keyring: Arc<Keyring>,
        pool: Pool,
        meters: Arc<Meters>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            pool,
            keyring,
            host: Host::new(HostConfig {
                timeout: config.timeout.min(SILENCE),
                ..config
            })?,
            circuit: Circuit::default(),
            memory: Memory::default(),
            meters,
        })
    }

    /// Puts into the events of an attempt the files that they are to carry, or why they don't. What this
    /// returns holds the memory that the files take.
    pub(crate) async fn inline(&self, job: &mut [Work], within: Duration) -> Option<Held> {
        let deadline = Instant::now() + within.min(FETCH);
        let client = job.first()?.event.client_id;
        let bytes = job.iter().map(Work::inlined_bytes).sum();
        let asks = bytes > 0 && self.circuit.lets_through(Instant::now());
        let mut held = match asks {
            true => timeout(ROOM, self.memory.take(client, bytes)).await.ok(),
            false => None,
        };
        let has_room = held.is_some();
        let brought_bytes = &AtomicU64::new(0);
        let files = job.iter_mut().filter_map(|work| {
            let mention = work.file.take()?;
            Some((mention, work.endpoint.inline_media_bytes, &mut work.event))
        });
        let put =
            stream::iter(files).for_each_concurrent(AT_ONCE, |(mention, most, event)| async move {
                let brought = if mention.size > most {
                    Err(Problem::TooLarge)
                } else if !asks {
                    Err(Problem::NotAsked)
                } else if !has_room {
                    Err(Problem::NoRoom)
                } else {
                    let bring = AssertUnwindSafe(self.bring(&mention, client, deadline));
                    bring.catch_unwind().await.unwrap_or(Err(Problem::Panic))
                };
                if brought.is_ok() {
                    brought_bytes.fetch_add(mention.base64_bytes(), Ordering::Relaxed);
                }
                self.put(&mention, event, brought);
            });
        put.await;
        // What was not brought takes no memory while the rest is delivered.
        if let Some(held) = &mut held {
            held.keep(brought_bytes.load(Ordering::Relaxed));
        }
        held
    }

    async fn bring(
        &self,
        mention: &Mention,
        client: i32,
        deadline: Instant,
    ) -> Result<Bytes, Problem> {
        let message = mention.id;
        let sealed = timeout_at(deadline, self.sealed(client, message)).await;
        let sealed = sealed.map_err(|_| Problem::Late)??;
        let file = File::open(&self.keyring, message, &sealed.ok_or(Problem::Forgotten)?)?;
        // There is memory for what the metadata say.
        if file.size > mention.size {
            return Err(Problem::TooLarge);
        }
        let began = Instant::now();
        let fetch = async { self.host.open(&file).await?.whole().await };
        let fetched = timeout_at(deadline, fetch).await;
        let now = Instant::now();
        match &fetched {
            Err(_) if now - began < SILENCE => {}
            Err(_) => self.circuit.failed("it does not get done", now),
            Ok(Err(error)) if error.is_the_hosts() => self.circuit.failed(error, now),
            Ok(_) => self.circuit.answered(),
        }
        Ok(fetched.map_err(|_| Problem::Late)??)
    }

    async fn sealed(&self, client: i32, message: Uuid) -> Result<Option<Vec<u8>>, Problem> {
        let mut conn = self.pool.get().await?;
        Ok(File::find_sealed(&mut conn, client, message).await?)
    }

    fn put(&self, mention: &Mention, event: &mut Claimed, brought: Result<Bytes, Problem>) {
        let outcome = match &brought {
            Ok(_) => Outcome::Inlined,
            Err(problem) => problem.outcome(),
        };
        self.meters.inline_media(outcome);
        let problem = match brought {
            Ok(file) => return mention.put_file(&mut event.metadata, &file),
            Err(problem) => problem,
        };
        mention.put_absence(&mut event.metadata, outcome.as_str());
        if let Problem::Sealed(error) = &problem {
            tracing::error!(message = %mention.id, "what its file takes can't be opened: {error}");
        }
        let (id, problem) = (event.id, anyhow::Error::from(problem));
        tracing::debug!(event = %id, "goes without its file: {problem:#}");
    }
}
