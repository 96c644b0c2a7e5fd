//! What a device has not acknowledged, and how it gets it: at once while it is connected, else
//! announced and fetched in batches after the next login.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, OwnedNodeRef};

use crate::base64_bytes;
use crate::connection::{Delivery, Outlet};
use crate::device::{Device, State};
use crate::journal::{Batch, Position};
use crate::ledger::Entry;
use crate::stanza::{encode, ib};
use crate::world::World;

/// Some clients never ask for batches: after this they get everything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A stanza that waits for its receipt.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) id: String,
    /// As it goes into a frame; the same bytes at every delivery.
    #[serde(with = "base64_bytes")]
    pub(crate) stanza: Vec<u8>,
    pub(crate) ledger: Option<Entry>,
    pub(crate) origin: Origin,
    /// The device gave up on it (a bare ack): it is not delivered again, but can be resent.
    pub(crate) parked: bool,
    /// It was encrypted anew after a retry receipt.
    pub(crate) resent: bool,
}

/// Who can encrypt it again.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// A simulated phone, which remembers the content.
    Phone {
        phone: String,
        group: Option<String>,
        #[serde(with = "base64_bytes")]
        content: Vec<u8>,
    },
    /// A linked device of a real client.
    Device { phone: String, device: u16 },
}

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

#[derive(Default)]
pub(crate) struct Queue {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    by_id: HashMap<String, u64>,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Waiting> {
        self.waiting.get(self.by_id.get(id)?)
    }

    fn push(&mut self, name: &str, waiting: Waiting, batch: &mut Batch) {
        let number = self.next;
        batch.put_json(&key(name, number), &waiting);
        self.insert(number, waiting);
    }

    fn insert(&mut self, number: u64, waiting: Waiting) {
        self.next = number + 1;
        self.by_id.insert(waiting.id.clone(), number);
        self.waiting.insert(number, waiting);
    }

    pub(crate) fn restore(&mut self, number: &str, value: &[u8]) -> Result<()> {
        self.insert(number.parse()?, serde_json::from_slice(value)?);
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &str, id: &str, batch: &mut Batch) -> Option<Waiting> {
        let number = self.by_id.remove(id)?;
        batch.delete(&key(name, number));
        self.waiting.remove(&number)
    }

    /// A bare ack: stop delivering it. A resent one still needs its receipt.
    pub(crate) fn park(&mut self, name: &str, id: &str, batch: &mut Batch) {
        let Some(number) = self.by_id.get(id) else {
            return;
        };
        if let Some(waiting) = self.waiting.get_mut(number)
            && !waiting.resent
        {
            waiting.parked = true;
            batch.put_json(&key(name, *number), waiting);
        }
    }

    pub(crate) fn erase(&self, name: &str, batch: &mut Batch) {
        for number in self.waiting.keys() {
            batch.delete(&key(name, *number));
        }
    }

    fn deliverable(&self, from: u64) -> impl Iterator<Item = (u64, &Waiting)> {
        let rest = self.waiting.range(from..);
        rest.filter(|(_, waiting)| !waiting.parked)
            .map(|(number, waiting)| (*number, waiting))
    }
}

fn key(device: &str, number: u64) -> String {
    format!("queue/{device}/{number:016}")
}

impl Device {
    /// Queues a stanza; the caller commits the batch and then calls [`put_on_wire`](Self::put_on_wire).
    pub(crate) fn enqueue(&self, state: &mut State, waiting: Waiting, batch: &mut Batch) {
        state.queue.push(&self.name(), waiting, batch);
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
        let preview = NodeBuilder::new("offline_preview")
            .attr("count", total)
            .attr("message", total)
            .attr("notification", 0)
            .attr("receipt", 0)
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
