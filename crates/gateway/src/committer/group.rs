//! What one transaction takes.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Entry, Submission};

const ROWS: usize = 1000;
const BYTES: usize = 4 * 1024 * 1024;

/// Messages in the order in which they were handed in.
#[derive(Debug, Default)]
pub(super) struct Group {
    items: Vec<Item>,
    bytes: usize,
}

/// One message; whoever handed it in is told when the last one of theirs is committed.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) entry: Entry,
    all: Arc<Waiting>,
}

/// Dropped with the last item: says so only if all were committed.
#[derive(Debug)]
struct Waiting(std::sync::Mutex<Option<Done>>);

#[derive(Debug)]
struct Done {
    left: usize,
    sender: oneshot::Sender<()>,
}

impl Group {
    pub(super) fn add(&mut self, submission: Submission) {
        let Submission { entries, done } = submission;
        let all = Arc::new(Waiting(std::sync::Mutex::new(Some(Done {
            left: entries.len(),
            sender: done,
        }))));
        for entry in entries {
            self.bytes += entry.row.content.len() + entry.row.metadata.len();
            self.bytes += entry.row.raw.as_ref().map_or(0, Vec::len);
            let all = Arc::clone(&all);
            self.items.push(Item { entry, all });
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.items.len() < ROWS && self.bytes < BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn into_items(self) -> Vec<Item> {
        self.items
    }
}

impl Item {
    pub(super) fn committed(self) {
        let mut waiting = self
            .all
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match waiting.as_mut() {
            Some(done) if done.left > 1 => done.left -= 1,
            _ => {
                // Nobody waits any more when the session has ended meanwhile.
                let _ = waiting.take().map(|done| done.sender.send(()));
            }
        }
    }
}
