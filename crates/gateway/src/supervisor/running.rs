//! A session that runs, as its supervisor sees it, and what its row wants of it.

use std::collections::VecDeque;
use std::sync::Arc;

use domain::connection::{Connection, Desired, Pairing, Status};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::hold::Hold;
use crate::session::Goal;

pub(super) struct Running {
    pub(super) hold: Hold,
    pub(super) goal: watch::Sender<Goal>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) phone_number: String,
    pub(super) linked: bool,
    pub(super) pairing: Pairing,
    /// To say that there is something to send.
    pub(super) poked: Arc<Notify>,
    pub(super) since: Instant,
}

impl Running {
    /// Whether it was told to end so that another gateway goes on with it.
    pub(super) fn leaves(&self) -> bool {
        *self.goal.borrow() == Goal::HandedOver
    }

    pub(super) fn is_connected(&self) -> bool {
        *self.status.borrow() == Status::Connected
    }

    /// Passes on what the row wants; also that it says otherwise than the session, which then says it again:
    /// who asks for a session anew before its end was begun resets the row, and nothing else would happen.
    pub(super) fn aim(&self, row: &Connection) {
        let goal = match goal_of(row) {
            // Before it was linked it was asked for anew, for another number or by another kind of code.
            Goal::Connected if row.phone_number != self.phone_number => Goal::HandedOver,
            Goal::Connected if row.jid.is_none() && row.pairing() != self.pairing => {
                Goal::HandedOver
            }
            goal => goal,
        };
        let connected = *self.status.borrow() == Status::Connected;
        let forgotten = connected && row.status != Status::Connected.as_str();
        self.goal.send_if_modified(|aimed| {
            // Whoever takes it will do what is wanted.
            if *aimed == Goal::HandedOver {
                return false;
            }
            let changed = *aimed != goal || forgotten;
            *aimed = goal;
            changed
        });
    }
}

/// To end a session is soon done. Somebody looks at a screen for those that are not linked yet.
pub(super) fn in_order(mut rows: Vec<Connection>) -> VecDeque<Connection> {
    rows.sort_by_key(|row| (place(goal_of(row)), row.jid.is_some(), row.created_at));
    rows.into()
}

/// In the queue of those that want a session.
pub(super) fn place(goal: Goal) -> u8 {
    match goal {
        Goal::Disconnected => 0,
        Goal::LoggedOut => 1,
        Goal::Connected | Goal::HandedOver => 2,
    }
}

/// To be disconnected it need not connect.
pub(super) fn is_paced(row: &Connection) -> bool {
    goal_of(row) != Goal::Disconnected
}

pub(super) fn goal_of(row: &Connection) -> Goal {
    if row.deleted_at.is_some() || row.is(Desired::LoggedOut) {
        Goal::LoggedOut
    } else if row.is(Desired::Disconnected) {
        Goal::Disconnected
    } else {
        Goal::Connected
    }
}
