//! Looks at a session whose client says nothing: is it as its row says, and does anything still come?
//!
//! The library pings a server that was silent for 15 to 30 seconds and gives the socket up 20 seconds later, but
//! by the wall clock, not once its loop has ended for another reason, and not when it can't decrypt what comes. Nor
//! does it say that it gave a socket up, or that it can't open one. A server that answers pings and delivers nothing looks like one that has nothing
//! to deliver: nobody can tell.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use whatsapp_rust::Client;

use crate::pulse::Pulse;
use crate::valve::Valve;

/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// What a client may take to let go of a socket.
const LET_GO: Duration = Duration::from_secs(15);

pub(super) struct Watchdog {
    client: Arc<Client>,
    pulse: Arc<Pulse>,
    valve: Arc<Valve>,
    /// How long a socket may be silent, or open without a session on it.
    silence: Duration,
    /// Since when no session is there.
    away: Option<Instant>,
}

/// What one look has shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// How long no session has been there.
    pub(super) away: Duration,
    /// How long sockets were tried of which none led anywhere.
    pub(super) in_vain: Duration,
    /// The socket is of no use any more.
    pub(super) dead: bool,
}

/// A socket that is open, and for how long …
#[derive(Debug, Clone, Copy)]
struct Socket {
    open: Duration,
    silent: Duration,
    without_session: Duration,
    linked: bool,
    /// … everything on it has been read.
    read: Duration,
}

impl Socket {
    /// What the valve holds back was not heard, and is no silence of the server's. A device that is not linked
    /// yet waits for its phone.
    fn useless_for(self) -> Duration {
        let useless = match self.linked {
            true => self.without_session.min(self.open),
            false => Duration::ZERO,
        };
        self.silent.max(useless).min(self.read)
    }
}

impl Watchdog {
    pub(super) fn new(
        client: Arc<Client>,
        pulse: Arc<Pulse>,
        valve: Arc<Valve>,
        silence: Duration,
    ) -> Self {
        Self {
            client,
            pulse,
            valve,
            silence,
            away: Some(Instant::now()),
        }
    }

    pub(super) fn look(&mut self) -> Found {
        let now = Instant::now();
        match self.client.is_connected() && self.client.is_logged_in() {
            true => {
                self.away = None;
                self.pulse.arrives();
            }
            false => drop(self.away.get_or_insert(now)),
        }
        let away = self.away.map_or(Duration::ZERO, |since| now - since);
        let (open, silent) = self.pulse.socket(now);
        let socket = Socket {
            open,
            silent,
            without_session: away,
            linked: self.client.pn().is_some(),
            read: self.valve.open_for(now),
        };
        Found {
            away,
            in_vain: self.pulse.in_vain(now),
            dead: self.client.is_connected() && socket.useless_for() > self.silence,
        }
    }

    /// Lets go of the socket; the client opens another one at once.
    pub(super) fn reconnect(&self) {
        metrics::counter!("recado_gateway_watchdog_reconnects_total").increment(1);
        // Counts as heard, so that the next look waits for what comes of this.
        self.pulse.opens(Instant::now());
        let client = Arc::clone(&self.client);
        tokio::spawn(async move {
            let _ = timeout(LET_GO, client.reconnect_immediately()).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn healthy() -> Socket {
        Socket {
            open: 9 * MINUTE,
            silent: Duration::ZERO,
            without_session: Duration::ZERO,
            linked: true,
            read: 9 * MINUTE,
        }
    }

    #[test]
    fn a_socket_is_useless_while_it_is_silent_or_has_no_session() {
        assert_eq!(healthy().useless_for(), Duration::ZERO);
        let silent = Socket {
            silent: MINUTE,
            ..healthy()
        };
        assert_eq!(silent.useless_for(), MINUTE);
        let idle = Socket {
            without_session: 2 * MINUTE,
            ..healthy()
        };
        assert_eq!(idle.useless_for(), 2 * MINUTE);
        let new = Socket {
            open: MINUTE,
            ..idle
        };
        assert_eq!(
            new.useless_for(),
            MINUTE,
            "what was before is not its fault"
        );
        let unlinked = Socket {
            linked: false,
            ..idle
        };
        assert_eq!(unlinked.useless_for(), Duration::ZERO);
    }

    #[test]
    fn what_is_not_read_is_no_silence() {
        let held_back = Socket {
            silent: 5 * MINUTE,
            without_session: 5 * MINUTE,
            read: Duration::ZERO,
            ..healthy()
        };
        assert_eq!(held_back.useless_for(), Duration::ZERO);
    }
}
