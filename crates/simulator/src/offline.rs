//! What a device has not acknowledged, and how it gets it: at once while it is connected, else
//! announced and fetched in batches after the next login.

use std::time::Duration;

use bytes::Bytes;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, OwnedNodeRef};

mod queue;

pub(crate) use queue::{Ack, Origin, Queue, Waiting};

use crate::connection::{Delivery, Outlet};
use crate::device::{Device, State};
use crate::journal::{Batch, Position};
use crate::stanza::{encode, ib};
use crate::world::World;

/// Some clients never ask for batches: after this they get everything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Where a connection is in its life.
#[derive(Clone, Copy)]
pub(crate) enum Phase {
    /// Logged in but not yet `active`, or not connected.
    Passive,
    /// What waited before the login is being fetched, up to and including `last`.
    Draining {
        next: u64,
        last: u64,
        total: usize,
    },
    Live,
}

impl Device {
    /// Queues a stanza; the caller commits the batch and then calls [`put_on_wire`](Self::put_on_wire).
    pub(crate) fn enqueue(&self, state: &mut State, waiting: Waiting, batch: &mut Batch) {
        state.queue.push(&self.name(), waiting, batch);
    }

    /// Queues a receipt, notification or call, and sends it when the device is ready for it. It
    /// waits for the client's `<ack>`. A device that never comes for them gets no more.
    pub(crate) fn post(&self, world: &World, notice: &Node) -> Position {
        let mut batch = Batch::default();
        let mut state = self.lock();
        let waiting = Waiting::notice(notice);
        let key = waiting.id.clone();
        if state.queue.has_too_many_notices() {
            return 0;
        }
        self.enqueue(&mut state, waiting, &mut batch);
        let position = world.journal.commit(batch);
        self.put_on_wire(&state, &key, position);
        position
    }

    /// Sends a queued stanza now, when the device is ready for it.
    pub(crate) fn put_on_wire(&self, state: &State, id: &str, position: Position) {
        if let (Phase::Live, Some(outlet)) = (state.phase, &state.outlet)
            && let Some(waiting) = state.queue.get(id)
        {
            self.deliver(
                outlet,
                waiting,
                Bytes::from(waiting.stanza.clone()),
                position,
                false,
            );
        }
    }

    fn deliver(
        &self,
        outlet: &Outlet,
        waiting: &Waiting,
        stanza: Bytes,
        position: Position,
        redelivery: bool,
    ) {
        let delivery = waiting.ledger.map(|entry| Delivery {
            entry,
            device: self.id,
            redelivery,
        });
        outlet.deliver(stanza, position, delivery);
    }

    /// The client is active: announces what waits, or says that nothing does.
    pub(crate) fn activate(&self, world: &World) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(outlet) = state.outlet.clone() else {
            return;
        };
        let total = state.queue.deliverable(0).count();
        let last = state.queue.deliverable(0).last();
        let Some((last, _)) = last else {
            state.phase = Phase::Live;
            outlet.send(&offline_end(0), 0);
            return;
        };
        state.phase = Phase::Draining {
            next: 0,
            last,
            total,
        };
        let of = |tag: &str| {
            let waiting = state.queue.deliverable(0);
            waiting.filter(|(_, waiting)| waiting.is(tag)).count()
        };
        let notices = [of("notification"), of("receipt"), of("call")];
        let preview = NodeBuilder::new("offline_preview")
            .attr("count", total)
            .attr("message", total - notices.iter().sum::<usize>())
            .attr("notification", notices[0])
            .attr("receipt", notices[1])
            .attr("call", notices[2])
            .attr("appdata", 0)
            .build();
        outlet.send(&ib(preview), world.journal.tail());
    }

    /// Hands out the next `count` of what waited before the login; after the last one the
    /// connection is live.
    pub(crate) fn drain(&self, world: &World, count: usize) {
        let mut state = self.lock();
        let state = &mut *state;
        let (Phase::Draining { next, last, total }, Some(outlet)) =
            (state.phase, state.outlet.clone())
        else {
            return;
        };
        let position = world.journal.tail();
        let mut next = next;
        for (number, waiting) in state.queue.deliverable(next).take(count) {
            if number > last {
                break;
            }
            next = number + 1;
            self.deliver(
                &outlet,
                waiting,
                as_offline(&waiting.stanza),
                position,
                true,
            );
        }
        let drained = state
            .queue
            .deliverable(next)
            .next()
            .is_none_or(|(n, _)| n > last);
        if !drained {
            state.phase = Phase::Draining { next, last, total };
            return;
        }
        outlet.send(&offline_end(total), 0);
        state.phase = Phase::Live;
        for (_, waiting) in state.queue.deliverable(last + 1) {
            self.deliver(
                &outlet,
                waiting,
                Bytes::from(waiting.stanza.clone()),
                position,
                false,
            );
        }
    }
}

/// The stanza with the attribute that marks it as waiting mail.
fn as_offline(stanza: &[u8]) -> Bytes {
    // The first byte is the frame's flags.
    let node = OwnedNodeRef::new(stanza[1..].to_vec()).expect("it was encoded here");
    let mut node = node.to_owned_node();
    node.attrs.push("offline", "0");
    encode(&node)
}

fn offline_end(count: usize) -> Node {
    ib(NodeBuilder::new("offline").attr("count", count).build())
}
