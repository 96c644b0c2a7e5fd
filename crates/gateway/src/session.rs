//! One connection's session, from its start until it is no longer wanted or has been ended from outside.
//!
//! It tells the connection's row what happens to it; the row tells it, through the supervisor, what is
//! wanted of it. An error of one session is never another's.

mod acks;
mod ending;
mod link;
mod row;
mod sending;
mod signals;
mod unreadable;
mod watchdog;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::connection::{Code, Connection, Status};
use domain::keyring::Keyring;
use queue::Doorbell;
use runtime::postgres::Pool;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::ending::Ending;
use self::link::{Link, Unlinking};
use self::row::Row;
use self::sending::Sending;
use self::signals::Signal;
use self::watchdog::{LOOK, Watchdog};
use crate::bell::Bell;
use crate::committer::Inbox;
use crate::config::{Limits, WhatsApp};
use crate::files::Files;
use crate::gate::{Confirmed, Turns};
use crate::hold::Hold;
use crate::pace::Pace;
use crate::store::bodies::Bodies;
use crate::store::inflight::Registry;
use crate::store::ratchets::Ratchets;
use crate::translate::Owner;
use crate::valve::Valve;
use crate::version::Versions;

/// How long there may be no session before the row says so and why: one that was connected when its gateway
/// ended, or whose socket the client lets go of without a word, is soon there again.
pub(crate) const RESTORE: Duration = Duration::from_secs(10);
/// What the row of a session that failed may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What all sessions share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) whatsapp: WhatsApp,
    pub(crate) versions: Versions,
    pub(crate) pool: Pool,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) files: Arc<Files>,
    pub(crate) inflight: Arc<Registry>,
    pub(crate) bodies: Bodies,
    pub(crate) ratchets: Ratchets,
    pub(crate) inbox: Inbox,
    pub(crate) bell: Bell,
    pub(crate) doorbell: Doorbell,
    pub(crate) valve: Arc<Valve>,
    pub(crate) confirmed: Confirmed,
    pub(crate) turns: Turns,
    pub(crate) limits: Limits,
    /// Nothing can be committed any more: the sessions end where they are.
    pub(crate) abandoned: CancellationToken,
}

/// What is wanted of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    Connected,
    Disconnected,
    /// Unlinked at WhatsApp, its keys deleted.
    LoggedOut,
    /// Ended, with its row left as it is: the next gateway goes on with it.
    HandedOver,
}

pub(crate) struct Session {
    connection: Connection,
    hold: Hold,
    owner: Arc<Owner>,
    shared: Shared,
    goal: watch::Receiver<Goal>,
    row: Row,
    /// Says that there is something to send.
    poked: Arc<Notify>,
    /// Until when the code that is to be typed is good.
    code_until: Option<Instant>,
}

impl Session {
    pub(crate) fn new(
        connection: Connection,
        hold: Hold,
        shared: Shared,
        goal: watch::Receiver<Goal>,
        status: watch::Sender<Status>,
        poked: Arc<Notify>,
    ) -> Self {
        let owner = Owner {
            connection_id: connection.id,
            client_id: connection.client_id,
            phone_number: connection.phone_number.clone(),
        };
        let row = Row::new(&connection, &hold, &shared, goal.clone(), status);
        Self {
            connection,
            hold,
            owner: Arc::new(owner),
            shared,
            goal,
            row,
            poked,
            code_until: None,
        }
    }

    /// Lives until the goal is reached or the session was ended. An error: it should be started again.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let abandoned = self.shared.abandoned.clone();
        let mut handed_over = self.goal.clone();
        let result = tokio::select! {
            biased;
            () = abandoned.cancelled() => return Ok(()),
            result = self.live(&mut handed_over) => result,
        };
        let leaves = *self.goal.borrow() == Goal::HandedOver || self.hold.is_lost();
        if result.is_err() && !leaves {
            let told = self
                .row
                .change(Status::Reconnecting, Some("session_failed"));
            // It failed for one reason already; a second one adds nothing.
            let _ = timeout(LAST_WORDS, told).await;
        }
        result
    }

    async fn live(&mut self, handed_over: &mut watch::Receiver<Goal>) -> anyhow::Result<()> {
        let wanted = Ending::wanted(*self.goal.borrow());
        if let Some(ending) = wanted.filter(|ending| !ending.unlinks()) {
            return ending.settle(&self.row, true).await;
        }
        let opened = tokio::select! {
            opened = Link::open(&self.shared, &self.connection, &self.hold, &self.owner) => opened,
            () = self.hold.lost() => return Ok(()),
            _ = handed_over.wait_for(|goal| *goal == Goal::HandedOver) => return Ok(()),
        };
        let mut link = match (opened, wanted) {
            (Ok(link), _) => link,
            (Err(error), None) => return Err(error),
            (Err(error), Some(ending)) => {
                tracing::warn!(connection_id = %self.owner.connection_id, "a device could not be \
                    opened to be unlinked; its keys are deleted: {error:#}");
                return ending.settle(&self.row, false).await;
            }
        };
        let sending = AbortOnDropHandle::new(tokio::spawn(self.sending(&link).run()));
        let followed = self.follow(&mut link).await;
        drop(sending);
        let mut ending = match followed {
            Ok(ending) => ending,
            Err(error) => {
                // The session that is started next must not meet this one's client on its device.
                link.close().await;
                return Err(error);
            }
        };
        tracing::info!(connection_id = %self.owner.connection_id, ?ending, "a session ends");
        let mut unlinked = true;
        if ending.unlinks() {
            tokio::select! {
                asked = link.unlink() => match asked {
                    Unlinking::Done => {}
                    Unlinking::Failed => unlinked = false,
                    Unlinking::TurnedAway => ending = Ending::HandedOver,
                },
                () = self.hold.lost() => ending = Ending::Lost,
                // The next gateway finds the same row, or the same device, and goes on.
                _ = handed_over.wait_for(|goal| *goal == Goal::HandedOver) => {
                    ending = Ending::HandedOver;
                }
            }
        }
        match ending {
            Ending::Lost => link.cut().await,
            _ => link.close().await,
        }
        ending.settle(&self.row, unlinked).await?;
        if ending == Ending::OUTDATED {
            // Only now, when the row can be found by whoever finds a newer one.
            self.shared.versions.doubt();
        }
        Ok(())
    }

    fn sending(&self, link: &Link) -> Sending {
        Sending {
            client: Arc::clone(&link.client),
            owner: Arc::clone(&self.owner),
            keyring: Arc::clone(&self.shared.keyring),
            files: Arc::clone(&self.shared.files),
            tried: HashMap::new(),
            hold: self.hold.clone(),
            pool: self.shared.pool.clone(),
            bell: self.shared.bell.clone(),
            acks: link.acks.clone(),
            poked: Arc::clone(&self.poked),
            status: self.row.status(),
            pace: Pace::new(self.shared.limits.send_rate),
        }
    }

    /// Passes on what happens until something ends the session.
    async fn follow(&mut self, link: &mut Link) -> anyhow::Result<Ending> {
        if let Some(ending) = Ending::wanted(*self.goal.borrow_and_update()) {
            return Ok(ending);
        }
        if link.is_foreign() {
            return Ok(Ending::NumberMismatch);
        }
        let mut watchdog = self.watchdog(link);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.hold.lost() => return Ok(Ending::Lost),
                changed = self.goal.changed() => {
                    changed?;
                    if let Some(ending) = Ending::wanted(*self.goal.borrow_and_update()) {
                        return Ok(ending);
                    }
                    self.row.restate().await?;
                }
                signal = link.next() => match signal {
                    Some(Signal::Ended(ending)) => {
                        if link.is_turned_away() {
                            self.row.explain("unreachable").await?;
                        }
                        return Ok(ending);
                    }
                    Some(Signal::CodesEnd) if self.code_until.is_none() => {
                        return Ok(Ending::NO_CODE);
                    }
                    Some(signal) => self.tell(link, signal).await?,
                    None => anyhow::bail!("the client ended and did not say why"),
                },
                () = sleep_until(self.code_until.unwrap_or_else(Instant::now)),
                    if self.code_until.is_some() => return Ok(Ending::CODE_EXPIRED),
                _ = look.tick() => self.look(&mut watchdog).await?,
            }
        }
    }

    fn watchdog(&self, link: &Link) -> Watchdog {
        Watchdog::new(
            Arc::clone(&link.client),
            Arc::clone(&link.pulse),
            Arc::clone(&self.shared.valve),
            self.shared.limits.silence,
        )
    }

    /// Of the client's own accord nothing is said of what this sees.
    async fn look(&self, watchdog: &mut Watchdog) -> anyhow::Result<()> {
        let found = watchdog.look();
        if found.dead {
            tracing::warn!(connection_id = %self.owner.connection_id, "a socket is of no use any more");
            watchdog.reconnect();
        }
        let lost = found.dead || found.away >= RESTORE;
        if lost && self.row.says_connected() {
            self.row
                .change(Status::Reconnecting, Some("connection_lost"))
                .await
        } else if found.in_vain >= RESTORE {
            self.row.explain("unreachable").await
        } else {
            Ok(())
        }
    }

    async fn tell(&mut self, link: &Link, signal: Signal) -> anyhow::Result<()> {
        if matches!(
            signal,
            Signal::Qr { .. } | Signal::PairingCode { .. } | Signal::Open
        ) {
            link.pulse.arrives();
        }
        match signal {
            Signal::Qr { code, until } => self.row.show(Code::Qr(&code), until).await,
            Signal::PairingCode { code, until } => {
                self.code_until = Some(until);
                self.row.show(Code::Pairing(&code), until).await
            }
            Signal::CodeDue => {
                link.ask_for_code(&self.owner.phone_number);
                Ok(())
            }
            Signal::Paired => {
                self.code_until = None;
                self.row.identify(&link.client).await
            }
            Signal::Open => {
                self.code_until = None;
                self.row.identify(&link.client).await?;
                self.row.change(Status::Connected, None).await?;
                self.poked.notify_one();
                Ok(())
            }
            Signal::Closed => {
                // A code is its socket's.
                self.code_until = None;
                self.row
                    .change(Status::Reconnecting, Some("connection_lost"))
                    .await
            }
            Signal::CodesEnd | Signal::Ended(_) => Ok(()),
        }
    }
}
