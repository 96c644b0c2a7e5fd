//! What survives a restart: an append-only log of key/value batches.
//!
//! A batch is written whole or not at all (length, CRC), in the order of the commits. Whoever
//! sends something that depends on a batch waits for it first, so a client never sees a state
//! that a killed simulator would forget. The log is not synced: it outlives the process (kill
//! -9), not a power cut.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::sync::watch;

mod log;

use log::Log;

/// Position in the journal; `0` is "nothing to wait for".
pub(crate) type Position = u64;

/// The state as it was found: keys in order.
pub(crate) type Found = BTreeMap<String, Vec<u8>>;

/// Changes that become durable together.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    pub(crate) fn put(&mut self, key: &str, value: &[u8]) {
        log::encode_put(&mut self.bytes, key, value);
    }

    pub(crate) fn put_json(&mut self, key: &str, value: &impl Serialize) {
        let json = serde_json::to_vec(value).expect("state has string keys and no failing types");
        self.put(key, &json);
    }

    pub(crate) fn delete(&mut self, key: &str) {
        log::encode_delete(&mut self.bytes, key);
    }
}

pub(crate) struct Journal {
    writer: Option<Writer>,
}

struct Writer {
    tail: Mutex<Tail>,
    durable: watch::Receiver<Position>,
    failure: watch::Receiver<Option<String>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Tail {
    last: Position,
    queue: Option<mpsc::Sender<Vec<u8>>>,
}

impl Journal {
    /// A journal that keeps nothing.
    pub(crate) fn forgetful() -> Self {
        Self { writer: None }
    }

    /// Opens or creates the journal in `dir`; fails when another simulator holds it.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Found)> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let lock = lock(dir)?;
        let (log, found) = Log::open(dir)?;
        let (queue, batches) = mpsc::channel();
        let (durable_tx, durable) = watch::channel(0);
        let (failure_tx, failure) = watch::channel(None);
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                if let Err(error) = write(log, &batches, &durable_tx) {
                    failure_tx.send_replace(Some(format!("{error:#}")));
                }
                drop(lock);
            })?;
        let writer = Writer {
            tail: Mutex::new(Tail {
                last: 0,
                queue: Some(queue),
            }),
            durable,
            failure,
            thread: Mutex::new(Some(thread)),
        };
        Ok((
            Self {
                writer: Some(writer),
            },
            found,
        ))
    }

    /// Queues the batch; [`durable`](Self::durable) with the position waits for it.
    pub(crate) fn commit(&self, batch: Batch) -> Position {
        let Some(writer) = &self.writer else {
            return 0;
        };
        if batch.bytes.is_empty() {
            return 0;
        }
        let mut tail = writer.tail.lock().expect("no panic while holding the tail");
        tail.last += 1;
        if let Some(queue) = &tail.queue {
            // A writer that failed never reports this position durable, so nothing goes out.
            let _ = queue.send(batch.bytes);
        }
        tail.last
    }

    /// The position of the last commit.
    pub(crate) fn tail(&self) -> Position {
        let Some(writer) = &self.writer else {
            return 0;
        };
        let tail = writer.tail.lock().expect("no panic while holding the tail");
        tail.last
    }

    /// Waits until the position is written. `false`: it never will be.
    pub(crate) async fn durable(&self, position: Position) -> bool {
        let Some(writer) = &self.writer else {
            return true;
        };
        if position == 0 || *writer.durable.borrow() >= position {
            return true;
        }
        let mut durable = writer.durable.clone();
        durable.wait_for(|at| *at >= position).await.is_ok()
    }

    /// Waits until everything committed so far is written: before a promise is given.
    pub(crate) async fn flushed(&self) -> bool {
        self.durable(self.tail()).await
    }

    /// Resolves with the reason once the journal cannot be written any more.
    pub(crate) async fn failed(&self) -> String {
        let Some(writer) = &self.writer else {
            return std::future::pending().await;
        };
        let mut failure = writer.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Writes what is queued and gives the folder free. Later commits are lost on purpose.
    pub(crate) fn close(&self) {
        let Some(writer) = &self.writer else { return };
        let queue = writer
            .tail
            .lock()
            .expect("no panic while holding the tail")
            .queue
            .take();
        drop(queue);
        let thread = writer.thread.lock().expect("only taken here").take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    file.try_lock()
        .with_context(|| format!("{} is in use by another simulator", dir.display()))?;
    Ok(file)
}

fn write(
    mut log: Log,
    batches: &mpsc::Receiver<Vec<u8>>,
    durable: &watch::Sender<Position>,
) -> Result<()> {
    /// One write call takes at most about this much.
    const GROUP: usize = 1 << 20;
    let mut written = 0;
    while let Ok(first) = batches.recv() {
        let mut group = vec![first];
        let mut size = group[0].len();
        while size < GROUP
            && let Ok(next) = batches.try_recv()
        {
            size += next.len();
            group.push(next);
        }
        log.append(&group).context("write the journal")?;
        written += group.len() as Position;
        durable.send_replace(written);
        log.compact_when_worth_it().context("compact the journal")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(journal: &Journal, key: &str, value: &str) -> Position {
        let mut batch = Batch::default();
        batch.put(key, value.as_bytes());
        journal.commit(batch)
    }

    #[tokio::test]
    async fn a_reopened_journal_finds_the_last_value_of_every_key() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, found) = Journal::open(dir.path()).unwrap();
        assert!(found.is_empty());
        put(&journal, "a", "1");
        put(&journal, "b", "2");
        let last = put(&journal, "a", "3");
        assert!(journal.durable(last).await);
        journal.close();

        let (journal, found) = Journal::open(dir.path()).unwrap();
        assert_eq!(found["a"], b"3");
        assert_eq!(found["b"], b"2");
        journal.close();
    }

    #[tokio::test]
    async fn a_torn_tail_is_cut_off_and_what_came_before_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        put(&journal, "a", "1");
        journal.close();
        let path = dir.path().join("journal");
        let mut bytes = std::fs::read(&path).unwrap();
        let whole = bytes.len();
        bytes.extend_from_slice(&bytes.clone()[..whole - 1]);
        std::fs::write(&path, &bytes).unwrap();

        let (journal, found) = Journal::open(dir.path()).unwrap();
        assert_eq!(found["a"], b"1");
        put(&journal, "b", "2");
        journal.close();
        let (journal, found) = Journal::open(dir.path()).unwrap();
        assert_eq!(found.len(), 2);
        journal.close();
    }

    #[test]
    fn one_folder_serves_one_simulator() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        let error = Journal::open(dir.path()).err().unwrap();
        assert!(error.to_string().contains("in use"), "{error}");
        journal.close();
        Journal::open(dir.path()).unwrap().0.close();
    }
}
