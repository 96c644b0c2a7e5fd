//! Holds back what WhatsApp sends while nothing can be committed, or no decrypted body stored.
//!
//! The library reads on whatever happens, and keeps what it has read in memory until the hook takes it. So
//! while the valve is closed each session reads a little and all of them together no more than a
//! budget; then their sockets are left unread, and WhatsApp keeps the messages. They stay open until the
//! library's own keepalive misses its answers, after some 20 to 50 seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use whatsapp_rust::transport::{Transport, TransportEvent, TransportFactory};
use whatsapp_rust::{anyhow, async_channel, async_trait};

use crate::pulse::Pulse;
use crate::underway::Underway;

/// What one session may read while the valve is closed: heartbeats for hours, or some hundred messages.
const PER_SESSION: u64 = 256 * 1024;
/// What all sessions may read together while the valve is closed.
const TOGETHER: u64 = 64 * 1024 * 1024;

/// One for all sessions of a gateway.
#[derive(Debug)]
pub struct Valve {
    state: watch::Sender<State>,
    used: AtomicU64,
    per_session: u64,
    together: u64,
}

/// Who keeps it closed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cause {
    Commits = 1,
    Bodies = 2,
}

/// Closings are numbered, so that each begins with a whole budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// A bit for each [`Cause`].
    causes: u8,
    number: u64,
    since: Instant,
}

impl Default for Valve {
    fn default() -> Self {
        Self::with_budget(PER_SESSION, TOGETHER)
    }
}

impl Valve {
    fn with_budget(per_session: u64, together: u64) -> Self {
        Self {
            state: watch::Sender::new(State {
                causes: 0,
                number: 0,
                since: Instant::now(),
            }),
            used: AtomicU64::new(0),
            per_session,
            together,
        }
    }

    pub(crate) fn close(&self, cause: Cause) {
        self.state.send_if_modified(|state| {
            let was_open = state.causes == 0;
            state.causes |= cause as u8;
            if was_open {
                self.used.store(0, Ordering::Relaxed);
                state.number += 1;
            }
            was_open
        });
        self.show();
    }

    /// It opens when nobody keeps it closed.
    pub(crate) fn open(&self, cause: Cause) {
        self.state.send_if_modified(|state| {
            let was_closed = state.causes != 0;
            state.causes &= !(cause as u8);
            let opens = was_closed && state.causes == 0;
            if opens {
                state.since = Instant::now();
            }
            opens
        });
        self.show();
    }

    fn show(&self) {
        let closed = self.state.borrow().causes != 0;
        metrics::gauge!("recado_gateway_valve_closed").set(if closed { 1 } else { 0 });
        if !closed {
            metrics::gauge!("recado_gateway_valve_used_bytes").set(0);
        }
    }

    /// How long it has been open; zero while it is closed.
    pub(crate) fn open_for(&self, now: Instant) -> Duration {
        let state = *self.state.borrow();
        match state.causes {
            0 => now.saturating_duration_since(state.since),
            _ => Duration::ZERO,
        }
    }

    /// A connection's own account of what it read.
    fn reader(self: &Arc<Self>) -> Reader {
        Reader {
            valve: Arc::clone(self),
            closing: 0,
            used: 0,
        }
    }

    /// Takes bytes from the common budget, if they are left.
    fn take(&self, bytes: u64) -> bool {
        let take = |used: u64| Some(used + bytes).filter(|used| *used <= self.together);
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok();
        if taken {
            metrics::gauge!("recado_gateway_valve_used_bytes").increment(bytes as f64);
        }
        taken
    }
}

struct Reader {
    valve: Arc<Valve>,
    closing: u64,
    used: u64,
}

impl Reader {
    /// Returns when so many bytes may be handed on.
    async fn admit(&mut self, bytes: u64) {
        let mut changes = self.valve.state.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            if state.causes == 0 {
                return;
            }
            if self.closing != state.number {
                (self.closing, self.used) = (state.number, 0);
            }
            if self.used + bytes <= self.valve.per_session && self.valve.take(bytes) {
                self.used += bytes;
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Connections whose reading the valve can stop.
pub(crate) struct Valved<F> {
    inner: F,
    valve: Arc<Valve>,
    pulse: Arc<Pulse>,
    underway: Arc<Underway>,
    shut: CancellationToken,
}

impl<F> Valved<F> {
    /// `shut` stops the reading of this session for good, without a word to the client.
    pub(crate) fn new(
        inner: F,
        valve: Arc<Valve>,
        pulse: Arc<Pulse>,
        underway: Arc<Underway>,
        shut: CancellationToken,
    ) -> Self {
        Self {
            inner,
            valve,
            pulse,
            underway,
            shut,
        }
    }
}

#[async_trait]
impl<F: TransportFactory> TransportFactory for Valved<F> {
    async fn create_transport(
        &self,
    ) -> Result<(Arc<dyn Transport>, async_channel::Receiver<TransportEvent>), anyhow::Error> {
        let (transport, read) = self.inner.create_transport().await?;
        self.pulse.opens(Instant::now());
        self.underway.opens();
        // Of one: the inner channel is the buffer.
        let (sender, receiver) = async_channel::bounded(1);
        let (reader, underway) = (self.valve.reader(), Arc::clone(&self.underway));
        let handing = self.shut.clone().run_until_cancelled_owned(hand_on(
            read,
            sender.clone(),
            reader,
            underway,
        ));
        tokio::spawn(async move {
            if handing.await.is_none() {
                sender.closed().await;
            }
        });
        Ok((transport, receiver))
    }
}

/// Ends when either side is gone. The client hears of the socket's end when it is done with what came on it.
async fn hand_on(
    read: async_channel::Receiver<TransportEvent>,
    sender: async_channel::Sender<TransportEvent>,
    mut reader: Reader,
    underway: Arc<Underway>,
) {
    let pass = async {
        while let Ok(event) = read.recv().await {
            match &event {
                TransportEvent::DataReceived(bytes) => reader.admit(bytes.len() as u64).await,
                TransportEvent::Disconnected(_) => underway.quiet().await,
                TransportEvent::Connected => {}
            }
            if sender.send(event).await.is_err() {
                return;
            }
        }
        underway.quiet().await;
    };
    tokio::select! {
        () = pass => {}
        () = sender.closed() => {}
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn admits(reader: &mut Reader, bytes: u64) -> bool {
        reader.admit(bytes).now_or_never().is_some()
    }

    #[test]
    fn an_open_valve_lets_everything_through() {
        let valve = Arc::new(Valve::with_budget(10, 10));
        assert!(admits(&mut valve.reader(), 1_000_000));
    }

    #[test]
    fn a_closed_one_lets_each_session_read_its_share_and_all_together_the_budget() {
        let valve = Arc::new(Valve::with_budget(10, 25));
        valve.close(Cause::Commits);
        let mut sessions = [valve.reader(), valve.reader(), valve.reader()];
        assert!(admits(&mut sessions[0], 10));
        assert!(!admits(&mut sessions[0], 1), "its share is read");
        assert!(admits(&mut sessions[1], 10));
        assert!(!admits(&mut sessions[2], 6), "the budget is read");
        assert!(admits(&mut sessions[2], 5));
        valve.open(Cause::Commits);
        assert!(admits(&mut sessions[0], 1_000));
        valve.close(Cause::Commits);
        assert!(admits(&mut sessions[0], 10), "the next closing begins anew");
    }

    #[test]
    fn it_knows_how_long_it_has_been_open() {
        let valve = Valve::with_budget(1, 1);
        let later = Instant::now() + Duration::from_secs(60);
        assert!(valve.open_for(later) >= Duration::from_secs(60));
        valve.close(Cause::Commits);
        assert_eq!(valve.open_for(later), Duration::ZERO);
        valve.open(Cause::Commits);
        let since = valve.state.borrow().since;
        valve.open(Cause::Commits);
        assert_eq!(valve.state.borrow().since, since, "it was open already");
        assert_eq!(valve.open_for(since), Duration::ZERO);
    }

    #[test]
    fn it_stays_closed_until_nobody_keeps_it_so() {
        let valve = Arc::new(Valve::with_budget(1, 1));
        valve.close(Cause::Commits);
        valve.close(Cause::Bodies);
        valve.open(Cause::Commits);
        assert!(!admits(&mut valve.reader(), 2));
        valve.open(Cause::Commits);
        assert!(!admits(&mut valve.reader(), 2));
        valve.open(Cause::Bodies);
        assert!(admits(&mut valve.reader(), 2));
    }

    #[tokio::test]
    async fn a_reader_that_waits_goes_on_when_the_valve_opens() {
        let valve = Arc::new(Valve::with_budget(1, 1));
        valve.close(Cause::Commits);
        let (sender, read) = async_channel::unbounded();
        let (out, received) = async_channel::bounded(1);
        let data = TransportEvent::DataReceived(vec![0; 100].into());
        sender.send(data).await.unwrap();
        let task = tokio::spawn(hand_on(read, out, valve.reader(), Arc::default()));
        tokio::task::yield_now().await;
        assert!(received.try_recv().is_err());
        valve.open(Cause::Commits);
        assert!(matches!(
            received.recv().await.unwrap(),
            TransportEvent::DataReceived(bytes) if bytes.len() == 100
        ));
        drop(received);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_is_given_up_does_not_wait_for_the_valve() {
        let valve = Arc::new(Valve::with_budget(1, 1));
        valve.close(Cause::Commits);
        let (sender, read) = async_channel::unbounded();
        let (out, received) = async_channel::bounded(1);
        let data = TransportEvent::DataReceived(vec![0; 100].into());
        sender.send(data).await.unwrap();
        let task = tokio::spawn(hand_on(read, out, valve.reader(), Arc::default()));
        drop(received);
        task.await.unwrap();
        assert!(sender.is_closed());
    }
}
