//! A device's client: made over its store, running, and ended in good order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use domain::connection::{Connection, Status};
use domain::failure::{Failure, classify};
use domain::lease::Lease;
use runtime::postgres::Pool;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use whatsapp_rust::bot::{Bot, BotHandle};
use whatsapp_rust::pair_code::PairCodeOptions;
use whatsapp_rust::transport::TokioWebSocketTransportFactory;
use whatsapp_rust::wacore::iq::devices::RemoveCompanionDeviceSpec;
use whatsapp_rust::wacore::store::DevicePropsOverride;
use whatsapp_rust::waproto::whatsapp::device_props::PlatformType;
use whatsapp_rust::{Client, RawNodeLease};

use super::Shared;
use super::acks::Acks;
use super::ending::Ending;
use super::signals::{Signal, Signals};
use super::unreadable::{self, Unreadable};
use crate::backoff::Backoff;
use crate::files::Plain;
use crate::gate::Gated;
use crate::hold::Hold;
use crate::hook::lost::LostMessages;
use crate::hook::{Asked, Hook};
use crate::pulse::Pulse;
use crate::store::{self, Shelf, Store};
use crate::translate::Owner;
use crate::underway::Underway;
use crate::valve::Valved;

/// What an unlinking may wait for a connection, and then for WhatsApp's answer.
const CONNECT_TO_UNLINK: Duration = Duration::from_secs(20);
const UNLINK: Duration = Duration::from_secs(10);
/// What messages that are being committed may take before the socket is closed.
const LAST_COMMITS: Duration = Duration::from_secs(2);
const CLOSE: Duration = Duration::from_secs(5);

pub(super) struct Link {
    pub(super) client: Arc<Client>,
    signals: mpsc::UnboundedReceiver<Signal>,
    handle: BotHandle,
    pub(super) acks: Acks,
    pub(super) pulse: Arc<Pulse>,
    confirmed: Arc<AtomicBool>,
    underway: Arc<Underway>,
    calls: TaskTracker,
    /// Stops the reading of the socket.
    shut: CancellationToken,
    /// The client is not to connect again before others have.
    crowded: CancellationToken,
    /// Each stanza is an event, and a sign of life.
    _every_stanza: RawNodeLease,
    /// Ends the calls of the hook when it is dropped.
    _ended: DropGuard,
}

/// What became of an unlinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unlinking {
    /// WhatsApp knows of it.
    Done,
    Failed,
    /// Too many sessions connect: whoever goes on with this one does it when it is its turn.
    TurnedAway,
}

impl Link {
    /// Makes the device its client and starts it.
    pub(super) async fn open(
        shared: &Shared,
        connection: &Connection,
        hold: &Hold,
        owner: &Arc<Owner>,
    ) -> anyhow::Result<Self> {
        let ended = CancellationToken::new();
        let calls = TaskTracker::new();
        let confirmed = Arc::new(AtomicBool::new(false));
        let acks = Acks::default();
        let pulse = Arc::new(Pulse::default());
        let underway = Arc::new(Underway::default());
        let shut = CancellationToken::new();
        let crowded = CancellationToken::new();
        let (sender, signals) = mpsc::unbounded_channel();
        let hook = Hook {
            owner: Arc::clone(owner),
            keyring: Arc::clone(&shared.keyring),
            inbox: shared.inbox.clone(),
            inflight: Arc::clone(&shared.inflight),
            confirmed: Arc::clone(&confirmed),
            ended: ended.clone(),
            underway: Arc::clone(&underway),
            calls: calls.clone(),
        };
        let device_id = device(&shared.pool, hold.lease()).await?;
        let asked = Asked::default();
        let shelf = Shelf {
            pool: shared.pool.clone(),
            keyring: Arc::clone(&shared.keyring),
            inflight: Arc::clone(&shared.inflight),
            bodies: shared.bodies.clone(),
            ratchets: shared.ratchets.clone(),
            lost_bodies: Arc::new(LostMessages::new(
                hook.clone(),
                hold.clone(),
                shared.pool.clone(),
                Arc::clone(&asked),
            )),
            underway: Arc::clone(&underway),
        };
        let unreadable = Unreadable {
            owner: Arc::clone(owner),
            client: Arc::clone(&asked),
            keyring: Arc::clone(&shared.keyring),
            inbox: shared.inbox.clone(),
            store: Arc::new(Store::new(shelf.clone(), hold.clone(), device_id)),
            looks: Arc::new(Semaphore::new(unreadable::AT_ONCE)),
        };
        let sockets = TokioWebSocketTransportFactory::new().with_url(shared.whatsapp.url.as_str());
        let sockets = Gated::new(
            sockets,
            hold.clone(),
            shared.confirmed.clone(),
            shared.turns.clone(),
            Arc::clone(&pulse),
            crowded.clone(),
        );
        let sockets = Valved::new(
            sockets,
            Arc::clone(&shared.valve),
            Arc::clone(&pulse),
            Arc::clone(&underway),
            shut.clone(),
        );
        if connection.reason.as_deref() == Some("client_outdated") {
            // Another gateway may know a newer one by now.
            shared.versions.recall(&shared.pool).await;
        }
        let version = shared.versions.current();
        let mut builder = Bot::builder()
            .with_backend(Store::new(shelf, hold.clone(), device_id))
            .with_transport_factory(sockets)
            .with_version((version.0, version.1, version.2))
            .with_device_props(appearance())
            .with_inbound_durability_hook(hook)
            .with_event_handler(Signals {
                owner: Arc::clone(owner),
                client: Arc::clone(&asked),
                keyring: Arc::clone(&shared.keyring),
                inbox: shared.inbox.clone(),
                unreadable,
                confirmed: Arc::clone(&confirmed),
                pairing: connection.pairing(),
                acks: acks.clone(),
                pulse: Arc::clone(&pulse),
                underway: Arc::clone(&underway),
                sender,
            })
            .skip_history_sync();
        if shared.whatsapp.url.scheme() == "ws" {
            builder = builder.with_http_client(Plain::default());
        }
        if cfg!(feature = "simulator") && connection.jid.is_none() {
            // To the simulator one name is one account. WhatsApp's own name comes from the phone.
            builder = builder.with_push_name(format!("recado {}", connection.id));
        }
        let bot = builder.build().await.context("the device's client")?;
        let client = bot.client();
        // It is set here alone.
        let _ = asked.set(Arc::downgrade(&client));
        let every_stanza = client.acquire_raw_node_forwarding();
        let pn = client.pn();
        confirmed.store(
            pn.is_some_and(|pn| owner.has_number(&pn)),
            Ordering::Release,
        );
        Ok(Self {
            client,
            signals,
            handle: bot.spawn(),
            acks,
            pulse,
            confirmed,
            underway,
            calls,
            shut,
            crowded,
            _every_stanza: every_stanza,
            _ended: ended.drop_guard(),
        })
    }

    /// Asks for a code to be typed; what becomes of it is a signal. While one is good, or the socket is gone on
    /// which one was offered, nothing happens.
    pub(super) fn ask_for_code(&self, phone_number: &str) {
        if !self.client.is_connected() {
            return;
        }
        let client = Arc::clone(&self.client);
        let options = PairCodeOptions {
            phone_number: phone_number.to_owned(),
            ..PairCodeOptions::default()
        };
        tokio::spawn(async move {
            // An error is also dispatched as an event.
            let _ = client.pair_with_code(options).await;
        });
    }

    /// Whether the device is linked to another number than it was registered for.
    pub(super) fn is_foreign(&self) -> bool {
        self.client.pn().is_some() && !self.confirmed.load(Ordering::Acquire)
    }

    /// What happens next; `None` when the client has ended by itself, after it has said all it had to.
    pub(super) async fn next(&mut self) -> Option<Signal> {
        tokio::select! {
            biased;
            signal = self.signals.recv() => signal,
            () = &mut self.handle => self.signals.try_recv().ok(),
            () = self.crowded.cancelled() => Some(Signal::Ended(Ending::HandedOver)),
        }
    }

    /// Whether it is far from its turn to connect again, after it has tried in vain.
    pub(super) fn is_turned_away(&self) -> bool {
        let in_vain = self.pulse.in_vain(Instant::now());
        self.crowded.is_cancelled() && !in_vain.is_zero()
    }

    /// Unlinks the device at WhatsApp.
    pub(super) async fn unlink(&mut self) -> Unlinking {
        let Some(pn) = self.client.pn() else {
            return Unlinking::Done;
        };
        let client = Arc::clone(&self.client);
        let unlinked = async {
            client.wait_for_connected(CONNECT_TO_UNLINK).await?;
            let remove = RemoveCompanionDeviceSpec::new(&pn);
            timeout(UNLINK, client.execute(remove)).await??;
            anyhow::Ok(())
        };
        let problem = tokio::select! {
            unlinked = unlinked => match unlinked {
                Ok(()) => return Unlinking::Done,
                Err(error) => error,
            },
            end = self.end() => match end {
                Some(Ending::Outside { status: Status::LoggedOut, .. }) => return Unlinking::Done,
                Some(Ending::HandedOver) => return Unlinking::TurnedAway,
                end => anyhow::anyhow!("the client ended: {end:?}"),
            },
        };
        tracing::warn!(
            "a device could not be unlinked at WhatsApp; its keys are deleted: {problem:#}"
        );
        Unlinking::Failed
    }

    /// Waits for the client's end.
    async fn end(&mut self) -> Option<Ending> {
        loop {
            if let Signal::Ended(ending) = self.next().await? {
                return Some(ending);
            }
        }
    }

    /// Ends the client. What is committed already is still acknowledged, the rest comes again.
    pub(super) async fn close(self) {
        // Nothing new is read, and what was read comes to the hook.
        self.shut.cancel();
        self.underway.quiet().await;
        self.calls.close();
        // Late ones are cut off: nothing was promised about them.
        let _ = timeout(LAST_COMMITS, self.calls.wait()).await;
        // What the library gathered is committed while it ends.
        end(self.handle).await;
    }

    /// Ends the client where it is. Nothing more is acknowledged.
    pub(super) async fn cut(self) {
        drop(self._ended);
        end(self.handle).await;
    }
}

async fn end(handle: BotHandle) {
    if timeout(CLOSE, handle.shutdown()).await.is_err() {
        tracing::warn!("a client did not end in good order within {CLOSE:?}");
    }
}

/// The connection's device, once PostgreSQL is there.
async fn device(pool: &Pool, lease: Lease) -> anyhow::Result<i32> {
    let mut backoff = Backoff::default();
    loop {
        if let Ok(mut conn) = pool.get().await {
            match store::find_or_create_device(&mut conn, lease).await {
                Err(error) if classify(&error) == Failure::Transient => {}
                found => return Ok(found?),
            }
        }
        backoff.pause().await;
    }
}

/// How the device looks in the phone's list of linked devices.
fn appearance() -> DevicePropsOverride {
    DevicePropsOverride::new()
        .with_os("Recado")
        .with_platform_type(PlatformType::CHROME)
}
