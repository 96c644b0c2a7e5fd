//! The stanzas that a device has not acknowledged, in their order.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use wacore_binary::{Node, NodeRef};

use crate::base64_bytes;
use crate::journal::Batch;
use crate::ledger::Entry;
use crate::stanza::{encode, text};

/// So many receipts, notifications and calls wait for a device.
const MAX_NOTICES: usize = 10_000;

/// A stanza that waits for its receipt.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// Of a message; what isn't one has an id that [`Ack`] leads to.
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
    /// Not a message, so there is nothing to encrypt.
    Server,
}

/// What an `<ack>` says, and what was sent had said: class, id, whom, type and participant.
pub(crate) struct Ack {
    class: String,
    id: String,
    rest: String,
}

impl Ack {
    /// Of the client's `<ack>`.
    pub(crate) fn read(node: &NodeRef<'_>) -> Option<Self> {
        Some(Self::of(node, &text(node, "class")?, "to"))
    }

    fn of(node: &NodeRef<'_>, class: &str, whom: &str) -> Self {
        let named = [whom, "type", "participant"].map(|name| text(node, name).unwrap_or_default());
        Self {
            class: class.to_owned(),
            id: text(node, "id").unwrap_or_default(),
            rest: named.join("/"),
        }
    }

    fn prefix(&self) -> String {
        format!("{}/{}/", self.class, self.id)
    }

    fn key(&self) -> String {
        self.prefix() + &self.rest
    }
}

impl Waiting {
    /// A receipt, notification or call.
    pub(super) fn notice(node: &Node) -> Self {
        Self {
            id: Ack::of(&node.as_node_ref(), &node.tag, "from").key(),
            stanza: encode(node).to_vec(),
            ledger: None,
            origin: Origin::Server,
            parked: false,
            resent: false,
        }
    }

    /// Whether it isn't a message but such a stanza.
    pub(super) fn is(&self, tag: &str) -> bool {
        let class = self.id.split_once('/').map(|(class, _)| class);
        self.is_notice() && class == Some(tag)
    }

    fn is_notice(&self) -> bool {
        matches!(self.origin, Origin::Server)
    }
}

#[derive(Default)]
pub(crate) struct Queue {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    by_id: BTreeMap<String, u64>,
    notices: usize,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Waiting> {
        self.waiting.get(self.by_id.get(id)?)
    }

    pub(super) fn push(&mut self, name: &str, waiting: Waiting, batch: &mut Batch) {
        // The same notice again is the same notice.
        self.remove(name, &waiting.id, batch);
        let number = self.next;
        batch.put_json(&key(name, number), &waiting);
        self.insert(number, waiting);
    }

    fn insert(&mut self, number: u64, waiting: Waiting) {
        self.notices += usize::from(waiting.is_notice());
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
        let waiting = self.waiting.remove(&number)?;
        self.notices -= usize::from(waiting.is_notice());
        Some(waiting)
    }

    pub(super) fn has_too_many_notices(&self) -> bool {
        self.notices >= MAX_NOTICES
    }

    /// The client has a receipt, notification or call. Clients differ in what they repeat in their
    /// answer beside class and id.
    pub(crate) fn acknowledged(&mut self, name: &str, ack: &Ack, batch: &mut Batch) {
        let (exact, prefix) = (ack.key(), ack.prefix());
        let found = match self.by_id.contains_key(&exact) {
            true => Some(exact),
            false => {
                let mut similar = self.by_id.range(prefix.clone()..);
                let first = similar.next().map(|(key, _)| key.clone());
                first.filter(|key| key.starts_with(&prefix))
            }
        };
        if let Some(key) = found {
            self.remove(name, &key, batch);
        }
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

    pub(super) fn deliverable(&self, from: u64) -> impl Iterator<Item = (u64, &Waiting)> {
        let rest = self.waiting.range(from..);
        rest.filter(|(_, waiting)| !waiting.parked)
            .map(|(number, waiting)| (*number, waiting))
    }
}

fn key(device: &str, number: u64) -> String {
    format!("queue/{device}/{number:016}")
}
