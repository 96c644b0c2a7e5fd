//! Before a socket is opened: is the session still this gateway's, and is it its turn?
//!
//! A client connects by itself whenever its socket breaks, also in a process that was stopped for a while and
//! whose sessions are another's by now. WhatsApp would end that other's connection. So a socket is opened only
//! when PostgreSQL has confirmed what this gateway holds so lately that nobody can have taken it; and on one that is
//! open nothing is said any more once it is known to be another's.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::transport::{Transport, TransportEvent, TransportFactory};
use whatsapp_rust::{anyhow, async_channel, async_trait};

use crate::hold::Hold;
use crate::pace::Pace;
use crate::pulse::Pulse;

/// Others take what a gateway holds three seconds after it renewed last, at the earliest.
const FRESH: Duration = Duration::from_millis(2500);
/// The client's hello, and the end of its handshake, which logs it in.
const LOGIN: usize = 2;
/// What an attempt to connect waits here; the client gives up after 20 s, and comes again.
const PATIENCE: Duration = Duration::from_secs(15);

/// When this gateway last renewed its lease and saw what it holds.
#[derive(Debug, Clone)]
pub(crate) struct Confirmed(watch::Sender<Option<Instant>>);

impl Default for Confirmed {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Confirmed {
    /// It did so in a question asked at that moment.
    pub(crate) fn at(&self, asked: Instant) {
        self.0.send_replace(Some(asked));
    }

    /// Waits until what it holds is surely its own.
    async fn fresh(&self) -> anyhow::Result<()> {
        let mut confirmed = self.0.subscribe();
        let fresh = |at: &Option<Instant>| at.is_some_and(|at| at.elapsed() < FRESH);
        let waiting = confirmed.wait_for(fresh);
        match timeout(PATIENCE, waiting).await {
            Ok(_) => Ok(()),
            Err(_) => anyhow::bail!("PostgreSQL does not say whose session it is"),
        }
    }
}

/// The pace of all connects of a gateway, first ones and those after a broken socket.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Mutex<Pace>>);

impl Turns {
    pub(crate) fn new(pace: Pace) -> Self {
        Self(Arc::new(Mutex::new(pace)))
    }

    pub(crate) fn with<T>(&self, use_pace: impl FnOnce(&mut Pace) -> T) -> T {
        // No code that holds the lock can leave the pace half changed.
        use_pace(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When a connect that wants to be now may be; `None` when that is too far away.
    fn take(&self, now: Instant) -> Option<Instant> {
        self.with(|pace| {
            let turn = pace.next().max(now);
            (turn < now + PATIENCE).then(|| {
                pace.start(now);
                turn
            })
        })
    }

    /// `false` when the turn is too far away to wait for.
    async fn wait(&self) -> bool {
        let Some(turn) = self.take(Instant::now()) else {
            return false;
        };
        // Gateways that lose their sockets in one moment don't come back in one.
        let step = self.with(|pace| pace.step());
        sleep_until(turn + step.mul_f64(rand::random())).await;
        true
    }
}

/// Opens one session's sockets.
pub(crate) struct Gated<F> {
    inner: F,
    hold: Hold,
    confirmed: Confirmed,
    turns: Turns,
    pulse: Arc<Pulse>,
    /// The first socket's turn was taken when the session was started.
    first: AtomicBool,
    crowded: CancellationToken,
}

impl<F> Gated<F> {
    /// `crowded` is cancelled when so many sessions want to connect that this one's turn is far away. It should then
    /// end, and wait with those that have no session: the client's own pauses between its attempts grow, and are
    /// soon much longer than the turn is away.
    pub(crate) fn new(
        inner: F,
        hold: Hold,
        confirmed: Confirmed,
        turns: Turns,
        pulse: Arc<Pulse>,
        crowded: CancellationToken,
    ) -> Self {
        Self {
            inner,
            hold,
            confirmed,
            turns,
            pulse,
            first: AtomicBool::new(true),
            crowded,
        }
    }
}

#[async_trait]
impl<F: TransportFactory> TransportFactory for Gated<F> {
    async fn create_transport(
        &self,
    ) -> Result<(Arc<dyn Transport>, async_channel::Receiver<TransportEvent>), anyhow::Error> {
        if !self.first.swap(false, Ordering::Relaxed) {
            let connects = self.turns.wait().await;
            if !connects {
                self.crowded.cancel();
                anyhow::bail!("too many sessions connect at once");
            }
        }
        self.confirmed.fresh().await?;
        anyhow::ensure!(!self.hold.is_lost(), "the session is another gateway's");
        self.pulse.tries(Instant::now());
        let (inner, read) = self.inner.create_transport().await?;
        let socket = Fenced {
            inner,
            hold: self.hold.clone(),
            confirmed: self.confirmed.clone(),
            login: AtomicUsize::new(LOGIN),
        };
        Ok((Arc::new(socket), read))
    }
}

/// A socket on which nothing more is said once the session is another gateway's: a client that is cut off in the middle
/// of a message would refuse it, and WhatsApp then drop it. Nor does a process that was stopped while it logged in go on
/// with that: it would end the other's connection.
struct Fenced {
    inner: Arc<dyn Transport>,
    hold: Hold,
    confirmed: Confirmed,
    /// Frames that are still to come until the login is done.
    login: AtomicUsize,
}

#[async_trait]
impl Transport for Fenced {
    async fn send(&self, data: Bytes) -> Result<(), anyhow::Error> {
        let less = |left: usize| left.checked_sub(1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.login.fetch_update(set, fetch, less).is_ok() {
            self.confirmed.fresh().await?;
        }
        anyhow::ensure!(!self.hold.is_lost(), "the session is another gateway's");
        self.inner.send(data).await
    }

    async fn disconnect(&self) {
        self.inner.disconnect().await;
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use domain::lease::Lease;
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;

    #[derive(Default)]
    struct Sent(Mutex<Vec<Bytes>>);

    #[async_trait]
    impl Transport for Sent {
        async fn send(&self, data: Bytes) -> Result<(), anyhow::Error> {
            self.0.lock().unwrap().push(data);
            Ok(())
        }

        async fn disconnect(&self) {}
    }

    #[tokio::test]
    async fn on_the_socket_of_a_lost_session_nothing_more_is_said() {
        let lease = Lease {
            connection_id: Uuid::new_v4(),
            epoch: 1,
        };
        let (sent, hold) = (Arc::new(Sent::default()), Hold::new(lease));
        let confirmed = Confirmed::default();
        let socket = Fenced {
            inner: Arc::clone(&sent) as Arc<dyn Transport>,
            hold: hold.clone(),
            confirmed: confirmed.clone(),
            login: AtomicUsize::new(1),
        };
        let mut login = std::pin::pin!(socket.send(Bytes::from_static(b"login")));
        assert!(futures_util::poll!(login.as_mut()).is_pending());
        confirmed.at(Instant::now());
        login.await.unwrap();
        confirmed.at(Instant::now() - FRESH);
        socket.send(Bytes::from_static(b"before")).await.unwrap();
        hold.lose();
        socket.send(Bytes::from_static(b"after")).await.unwrap_err();
        assert_eq!(*sent.0.lock().unwrap(), ["login", "before"]);
    }

    #[tokio::test]
    async fn a_socket_waits_for_a_confirmation_that_is_fresh() {
        let confirmed = Confirmed::default();
        assert!(confirmed.fresh().now_or_never().is_none());
        confirmed.at(Instant::now() - FRESH);
        let mut waiting = std::pin::pin!(confirmed.fresh());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        confirmed.at(Instant::now());
        waiting.await.unwrap();
    }

    struct Refused;

    #[async_trait]
    impl TransportFactory for Refused {
        async fn create_transport(
            &self,
        ) -> Result<(Arc<dyn Transport>, async_channel::Receiver<TransportEvent>), anyhow::Error>
        {
            anyhow::bail!("refused")
        }
    }

    #[tokio::test]
    async fn a_session_whose_turn_is_far_away_is_told_to_end() {
        let lease = Lease {
            connection_id: Uuid::new_v4(),
            epoch: 1,
        };
        let (confirmed, crowded) = (Confirmed::default(), CancellationToken::new());
        confirmed.at(Instant::now());
        let turns = Turns::new(Pace::new(NonZeroU32::new(1).unwrap()));
        while turns.take(Instant::now()).is_some() {}
        let gated = Gated::new(
            Refused,
            Hold::new(lease),
            confirmed,
            turns,
            Arc::default(),
            crowded.clone(),
        );
        let connect = async || gated.create_transport().await.err().unwrap().to_string();
        // Its turn was taken when it was started.
        assert_eq!(connect().await, "refused");
        assert!(!crowded.is_cancelled());
        assert_eq!(connect().await, "too many sessions connect at once");
        assert!(crowded.is_cancelled());
    }

    #[test]
    fn broken_sockets_come_back_at_the_pace_and_those_whose_turn_is_far_try_again_later() {
        let turns = Turns::new(Pace::new(NonZeroU32::new(2).unwrap()));
        let now = Instant::now();
        let all: Vec<_> = (0..100).map_while(|_| turns.take(now)).collect();
        let waits: Vec<_> = all.iter().map(|turn| (*turn - now).as_millis()).collect();
        assert_eq!(waits[..4], [0, 0, 500, 1000]);
        assert_eq!(waits.len(), 31);
        assert!(turns.take(now).is_none());
        assert!(turns.take(now + Duration::from_secs(1)).is_some());
    }
}
