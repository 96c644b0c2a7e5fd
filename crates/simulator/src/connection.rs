//! One WebSocket: the handshake, frames in, stanzas out.
//!
//! A stanza leaves only after the journal has what it depends on, and in the order it was given.

use std::sync::Arc;
use std::time::Duration;

use actix_web::rt;
use actix_ws::{AggregatedMessageStream, Session};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wacore_binary::{Node, OwnedNodeRef};
use wacore_noise::framing::encode_frame;

mod frames;

use frames::Frames;

use crate::faults::{Fate, Faults, Step};
use crate::handshake::{self, Agreement, Answer};
use crate::journal::Position;
use crate::ledger::Entry;
use crate::noise::{Opener, Sealer};
use crate::stanza::encode;
use crate::world::World;
use crate::{pairing, session};

/// A client that hasn't finished its handshake by then is hung up on.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// Between the last stanza and the end of the socket, so that the client reads that stanza first.
const LINGER: Duration = Duration::from_millis(300);

/// Speaks the protocol over the socket until either side ends it. `host` is what the client calls
/// this server.
pub(crate) async fn serve(
    world: Arc<World>,
    host: String,
    mut socket: Session,
    messages: AggregatedMessageStream,
) {
    world.stats.connections_accepted.add();
    let mut frames = Frames::new(messages, socket.clone());
    let greeting = tokio::time::timeout(HANDSHAKE, greet(&world, &mut frames, &mut socket));
    let agreement = match greeting.await {
        Ok(Ok(Some(agreement))) => agreement,
        Ok(Ok(None)) => {
            frames.ignore().await;
            let _ = socket.close(None).await;
            return;
        }
        Ok(Err(error)) => {
            tracing::debug!("handshake failed: {error:#}");
            let _ = socket.close(None).await;
            return;
        }
        Err(_) => {
            tracing::debug!("handshake timed out");
            let _ = socket.close(None).await;
            return;
        }
    };
    let user = agreement.payload.username.map(|user| user.to_string());
    match world.fate(user.as_deref(), Step::Finish) {
        Fate::GoesOn => {}
        fate => {
            if fate == Fate::Silent {
                frames.ignore().await;
            }
            let _ = socket.close(None).await;
            return;
        }
    }
    let (queue, outgoing) = unbounded_channel();
    let closed = CancellationToken::new();
    let outlet = Outlet {
        id: world.next_connection(),
        queue,
        faults: world.faults.clone(),
        account: user.map(Arc::from),
    };
    let sealer = Sealer::new(agreement.to_client);
    let writer = Writer {
        world: world.clone(),
        outgoing,
        sealer,
        socket,
    };
    let ended = closed.clone().drop_guard();
    rt::spawn(async move {
        writer.run().await;
        drop(ended);
    });
    let incoming = Incoming {
        frames,
        opener: Opener::new(agreement.from_client),
        closed,
    };
    let payload = agreement.payload;
    let key = agreement.client_key;
    let result = match payload.device_pairing_data.is_set() {
        true => pairing::serve(&world, &payload, key, outlet, incoming).await,
        false => session::serve(&world, host, &payload, key, outlet, incoming).await,
    };
    if let Err(error) = result {
        tracing::debug!("connection ended: {error:#}");
    }
}

/// `None`: the server was wished to say nothing more.
async fn greet(
    world: &World,
    frames: &mut Frames,
    socket: &mut Session,
) -> Result<Option<Agreement>> {
    const GONE: &str = "the client went away";
    const WISHED: &str = "closed, as was wished";
    let fate = |step| world.fate(None, step);
    let hello = frames.next().await?.context(GONE)?;
    match fate(Step::Hello) {
        Fate::GoesOn => {}
        Fate::Closed => bail!(WISHED),
        Fate::Silent => return Ok(None),
    }
    let answer = handshake::answer(&world.identity, &hello)?;
    let (Answer::Complete(reply, _) | Answer::AwaitFinish(reply, _)) = &answer;
    socket.binary(encode_frame(reply, None)?).await?;
    match fate(Step::ServerHello) {
        Fate::GoesOn => {}
        Fate::Closed => bail!(WISHED),
        Fate::Silent => return Ok(None),
    }
    Ok(Some(match answer {
        Answer::Complete(_, agreement) => *agreement,
        Answer::AwaitFinish(_, rest) => rest.finish(&frames.next().await?.context(GONE)?)?,
    }))
}

/// Stanzas from the client.
pub(crate) struct Incoming {
    frames: Frames,
    opener: Opener,
    closed: CancellationToken,
}

impl Incoming {
    /// The next stanza; `None` when the connection is over.
    pub(crate) async fn next(&mut self) -> Result<Option<OwnedNodeRef>> {
        let frame = tokio::select! {
            frame = self.frames.next() => frame?,
            () = self.closed.cancelled() => None,
        };
        frame.map(|frame| self.opener.open(frame)).transpose()
    }
}

/// Which message a stanza carries, for the ledger.
pub(crate) struct Delivery {
    pub(crate) entry: Entry,
    pub(crate) device: u16,
    pub(crate) redelivery: bool,
}

struct Outgoing {
    due: Instant,
    position: Position,
    what: What,
}

enum What {
    Stanza(Bytes, Option<Delivery>),
    Garbage(Vec<u8>),
    Close,
}

/// The way to the client; clones lead to the same socket.
#[derive(Clone)]
pub(crate) struct Outlet {
    /// Tells connections apart.
    pub(crate) id: u64,
    queue: UnboundedSender<Outgoing>,
    faults: Arc<Faults>,
    /// Whose faults hold, when it isn't a registration.
    account: Option<Arc<str>>,
}

impl Outlet {
    /// Sends a stanza once `position` is durable.
    pub(crate) fn send(&self, node: &Node, position: Position) {
        self.deliver(encode(node), position, None);
    }

    fn due(&self) -> Instant {
        Instant::now() + self.faults.of(self.account.as_deref()).latency()
    }

    pub(crate) fn deliver(&self, stanza: Bytes, position: Position, delivery: Option<Delivery>) {
        let due = self.due();
        self.push(due, position, What::Stanza(stanza, delivery));
    }

    /// Sends bytes that are no frame of this connection.
    pub(crate) fn garbage(&self, bytes: Vec<u8>) {
        self.push(self.due(), 0, What::Garbage(bytes));
    }

    /// Ends the connection after what was sent before.
    pub(crate) fn close(&self) {
        self.push(self.due(), 0, What::Close);
    }

    /// The same, leaving the client time to read the last stanza and hang up itself.
    pub(crate) fn close_soon(&self) {
        let due = self.due() + LINGER;
        self.push(due, 0, What::Close);
    }

    fn push(&self, due: Instant, position: Position, what: What) {
        // A connection that is over takes nothing; what matters is in the queue of the device.
        let _ = self.queue.send(Outgoing {
            due,
            position,
            what,
        });
    }
}

struct Writer {
    world: Arc<World>,
    outgoing: UnboundedReceiver<Outgoing>,
    sealer: Sealer,
    socket: Session,
}

impl Writer {
    /// How many stanzas go into one WebSocket message at most.
    const GROUP: usize = 64;

    async fn run(mut self) {
        let mut next = self.outgoing.recv().await;
        while let Some(first) = next.take() {
            tokio::time::sleep_until(first.due).await;
            let mut group = vec![first];
            while group.len() < Self::GROUP
                && let Ok(item) = self.outgoing.try_recv()
            {
                if item.due > Instant::now() {
                    next = Some(item);
                    break;
                }
                group.push(item);
            }
            match self.write(group).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!("write failed: {error:#}");
                    break;
                }
            }
            if next.is_none() {
                next = self.outgoing.recv().await;
            }
        }
        let _ = self.socket.close(None).await;
    }

    /// `false`: the connection shall end.
    async fn write(&mut self, group: Vec<Outgoing>) -> Result<bool> {
        let mut bytes = Vec::new();
        let mut deliveries = Vec::new();
        let mut go_on = true;
        for item in group {
            if !self.world.journal.durable(item.position).await {
                return Ok(false);
            }
            match item.what {
                What::Stanza(stanza, delivery) => {
                    self.sealer.seal(&stanza, &mut bytes)?;
                    self.world.stats.stanzas_out.add();
                    deliveries.extend(delivery);
                }
                What::Garbage(garbage) => bytes.extend_from_slice(&garbage),
                What::Close => {
                    go_on = false;
                    break;
                }
            }
        }
        if !bytes.is_empty() {
            self.socket.binary(bytes).await?;
            self.count(&deliveries);
        }
        Ok(go_on)
    }

    fn count(&self, deliveries: &[Delivery]) {
        let world = &self.world;
        for delivery in deliveries {
            world.stats.deliveries.add();
            if delivery.redelivery {
                world.stats.redeliveries.add();
            }
        }
        world.ledger.went_out(deliveries, &world.journal);
    }
}
