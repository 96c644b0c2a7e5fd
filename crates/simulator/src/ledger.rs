//! Every message that contacts wrote: how often it went out, and when it was acknowledged.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use crate::connection::Delivery;
use crate::journal::{Batch, Journal, Position};

/// Index of a message in the ledger.
pub(crate) type Entry = usize;

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: String,
    /// The number whose devices get it.
    pub(crate) account: String,
    pub(crate) from: String,
    pub(crate) to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// Unix milliseconds.
    pub(crate) sent_at: i64,
    pub(crate) devices: Vec<Line>,
}

/// One device's share of a message.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) device: u16,
    pub(crate) deliveries: u32,
    pub(crate) acked_at: Option<i64>,
}

#[derive(Serialize)]
pub(crate) struct View {
    id: String,
    from: String,
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    sent_at: String,
    /// Over all devices.
    deliveries: u32,
    /// When the last device acknowledged it; `null` while one hasn't.
    acked_at: Option<String>,
    devices: Vec<LineView>,
}

/// A part of the ledger.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) messages: Vec<View>,
    /// How many positions it covers; fewer than asked for at the end.
    pub(crate) passed: usize,
}

#[derive(Serialize)]
struct LineView {
    device: u16,
    deliveries: u32,
    acked_at: Option<String>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// `None`: entered, but its sender died before the commit.
    messages: Vec<Option<Message>>,
    by_account: HashMap<String, Vec<Entry>>,
    by_id: HashMap<String, Entry>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("no panic while holding the ledger")
    }

    pub(crate) fn enter(&self, message: Message, batch: &mut Batch) -> Entry {
        let mut inner = self.lock();
        let entry = inner.messages.len();
        keep(entry, &message, batch);
        inner.insert(message);
        entry
    }

    /// The journal's entries, in order of their numbers.
    pub(crate) fn restore(&self, number: &str, value: &[u8]) -> Result<()> {
        let mut inner = self.lock();
        inner.messages.resize_with(number.parse()?, || None);
        inner.insert(serde_json::from_slice(value)?);
        Ok(())
    }

    // Both changes are committed under the lock: the journal's last word on a message must be
    // the ledger's.

    pub(crate) fn went_out(&self, deliveries: &[Delivery], journal: &Journal) {
        let mut inner = self.lock();
        let mut batch = Batch::default();
        for delivery in deliveries {
            inner.change(delivery.entry, delivery.device, &mut batch, |line| {
                line.deliveries += 1;
            });
        }
        journal.commit(batch);
    }

    /// Notes when a device acknowledged these, and commits that with the rest of the batch.
    pub(crate) fn acked(
        &self,
        entries: &[Entry],
        device: u16,
        at: i64,
        mut batch: Batch,
        journal: &Journal,
    ) -> Position {
        let mut inner = self.lock();
        for entry in entries {
            inner.change(*entry, device, &mut batch, |line| {
                line.acked_at.get_or_insert(at);
            });
        }
        journal.commit(batch)
    }

    pub(crate) fn find(&self, id: &str) -> Option<Message> {
        let inner = self.lock();
        inner.messages[*inner.by_id.get(id)?].clone()
    }

    /// Up to `limit` messages from position `from` on, of one account or of all.
    pub(crate) fn page(&self, account: Option<&str>, from: usize, limit: usize) -> Page {
        let inner = self.lock();
        let mut page = Page::default();
        let mut turn = |message: Option<&Message>| {
            page.passed += 1;
            page.messages.extend(message.map(view));
        };
        match account {
            Some(account) => {
                let entries = inner.by_account.get(account).into_iter().flatten();
                let entries = entries.skip(from).take(limit);
                entries.for_each(|entry| turn(inner.messages[*entry].as_ref()));
            }
            None => {
                let messages = inner.messages.iter().skip(from).take(limit);
                messages.for_each(|message| turn(message.as_ref()));
            }
        }
        page
    }
}

impl Inner {
    fn insert(&mut self, message: Message) {
        let entry = self.messages.len();
        self.by_id.insert(message.id.clone(), entry);
        let account = self.by_account.entry(message.account.clone()).or_default();
        account.push(entry);
        self.messages.push(Some(message));
    }

    fn change(
        &mut self,
        entry: Entry,
        device: u16,
        batch: &mut Batch,
        change: impl FnOnce(&mut Line),
    ) {
        let Some(Some(message)) = self.messages.get_mut(entry) else {
            return;
        };
        if let Some(line) = message.devices.iter_mut().find(|l| l.device == device) {
            change(line);
            keep(entry, message, batch);
        }
    }
}

fn keep(entry: Entry, message: &Message, batch: &mut Batch) {
    batch.put_json(&format!("ledger/{entry:012}"), message);
}

fn view(message: &Message) -> View {
    let all_acked = message.devices.iter().all(|line| line.acked_at.is_some());
    let last = message
        .devices
        .iter()
        .filter_map(|line| line.acked_at)
        .max();
    let lines = message.devices.iter().map(|line| LineView {
        device: line.device,
        deliveries: line.deliveries,
        acked_at: line.acked_at.map(rfc3339),
    });
    View {
        id: message.id.clone(),
        from: message.from.clone(),
        to: message.to.clone(),
        group: message.group.clone(),
        sent_at: rfc3339(message.sent_at),
        deliveries: message.devices.iter().map(|line| line.deliveries).sum(),
        acked_at: last.filter(|_| all_acked).map(rfc3339),
        devices: lines.collect(),
    }
}

pub(crate) fn rfc3339(milliseconds: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(milliseconds)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}
