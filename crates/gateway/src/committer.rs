//! The group commit: one task commits the messages of all sessions, each time what gathered while the last
//! transaction ran. No timer: a lone message is committed at once, and under load groups grow by themselves.
//!
//! Nothing it is given is given up: while PostgreSQL is away it waits, and those who gave it wait with it.
//! It need not ask whether a session is still this gateway's: its ids are derived, so that whoever commits a
//! message, it is the same row; and who lost the session could not store the body before (`store`).

mod group;
mod line;
mod stuck;

use std::sync::Arc;
use std::time::Duration;

use diesel_async::AsyncPgConnection;
use domain::failure::{Failure, classify};
use domain::inbox;
use domain::keyring::Keyring;
use domain::message::NewMessage;
use runtime::config::DatabaseConfig;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use whatsapp_rust::types::message::MessageInfo;
use whatsapp_rust::waproto::whatsapp as wa;

use self::group::{Group, Item};
use self::stuck::Stuck;
use crate::backoff::Backoff;
use crate::bell::Bell;
use crate::translate::{self, Numbers, Owner};
use crate::valve::{Cause, Valve};

/// Submissions that wait while a group is committed; who submits more waits to submit.
const WAITING: usize = 4096;
/// How often an idle connection is asked whether it is there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A group that takes longer closes the valve.
const PATIENCE: Duration = Duration::from_secs(1);
/// A transaction that takes longer is given up with its connection.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(30);
/// How often a lone row is tried whose error does not say whether it is at fault.
const UNCLEAR_TRIES: u32 = 3;
const UNCLEAR_PAUSE: Duration = Duration::from_millis(20);

/// A message to be committed, with what it was made of.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    row: NewMessage,
    /// Kept raw should PostgreSQL refuse the row.
    message: Option<Arc<wa::Message>>,
}

/// Where messages are handed in. Clones lead to one committer, which may end before them.
#[derive(Debug, Clone)]
pub(crate) struct Inbox(mpsc::Sender<Submission>);

/// The committer has ended: nothing was promised about the message.
#[derive(Debug, thiserror::Error)]
#[error("messages are no longer committed by this gateway")]
pub(crate) struct Ended;

#[derive(Debug)]
struct Submission {
    entries: Vec<Entry>,
    done: oneshot::Sender<()>,
}

impl Entry {
    /// An entry whose row PostgreSQL can hold, as far as that can be told beforehand.
    pub(crate) fn new(row: NewMessage, message: Option<Arc<wa::Message>>) -> Self {
        let mut entry = Self { row, message };
        if let Some(reason) = entry.row.poison() {
            entry.row = entry.kept_raw(reason);
        }
        entry
    }

    /// A message's entry; none of what the account's own devices tell each other.
    pub(crate) fn of(
        keyring: &Keyring,
        owner: &Owner,
        info: &MessageInfo,
        message: &Arc<wa::Message>,
        numbers: &Numbers,
    ) -> Option<Self> {
        if translate::is_internal(info, message) {
            return None;
        }
        let translated = translate::message(owner, info, message, numbers);
        Some(Self::new(
            translated.sealed(keyring),
            Some(Arc::clone(message)),
        ))
    }

    fn kept_raw(&self, reason: &str) -> NewMessage {
        tracing::warn!(id = %self.row.id, connection_id = %self.row.connection_id, reason,
            "PostgreSQL cannot hold a message: it is kept raw");
        metrics::counter!("recado_gateway_poison_total").increment(1);
        translate::unsupported(&self.row, self.message.as_deref(), reason)
    }
}

impl Inbox {
    /// Returns once all are committed, in slice order, whatever that takes. If the future is dropped, they
    /// are committed nevertheless.
    pub(crate) async fn commit(&self, entries: Vec<Entry>) -> Result<(), Ended> {
        if entries.is_empty() {
            return Ok(());
        }
        let (done, committed) = oneshot::channel();
        let submission = Submission { entries, done };
        self.0.send(submission).await.map_err(|_| Ended)?;
        committed.await.map_err(|_| Ended)
    }

    /// Hands in messages that nobody waits for; an error when too many wait already.
    pub(crate) fn offer(&self, entries: Vec<Entry>) -> anyhow::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let (done, _) = oneshot::channel();
        Ok(self.0.try_send(Submission { entries, done })?)
    }
}

/// See the module.
pub(crate) struct Committer {
    database: DatabaseConfig,
    conn: AsyncPgConnection,
    submissions: mpsc::Receiver<Submission>,
    stuck: Stuck,
    bell: Bell,
    valve: Arc<Valve>,
    finish: CancellationToken,
}

/// It was told to end while PostgreSQL is away.
struct Finished;

/// How a lone row fared.
enum Verdict {
    Committed,
    /// PostgreSQL refuses it every time.
    Refused(String),
    /// PostgreSQL answers, but not for this row, and does not say why.
    Unclear(String),
}

impl Committer {
    /// A committer, once PostgreSQL is there. When `finish` is cancelled it takes nothing more, and ends when
    /// it has committed what it took.
    pub(crate) async fn start(
        database: DatabaseConfig,
        bell: Bell,
        valve: Arc<Valve>,
        finish: CancellationToken,
    ) -> (Inbox, Self) {
        let (sender, submissions) = mpsc::channel(WAITING);
        let committer = Self {
            conn: line::connect(&database).await,
            database,
            submissions,
            stuck: Stuck::default(),
            bell,
            valve,
            finish,
        };
        (Inbox(sender), committer)
    }

    /// Commits until it is told to end.
    pub(crate) async fn run(mut self) {
        let (Ok(()) | Err(Finished)) = self.commit_all().await;
    }

    async fn commit_all(&mut self) -> Result<(), Finished> {
        let finish = self.finish.clone();
        loop {
            let mut group = Group::default();
            let due = self.stuck.due();
            tokio::select! {
                submission = self.submissions.recv() => match submission {
                    Some(submission) => group.add(submission),
                    None => return Ok(()),
                },
                () = finish.cancelled(), if !self.submissions.is_closed() => {
                    self.submissions.close();
                }
                () = tokio::time::sleep_until(due) => {}
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            while group.has_room()
                && let Ok(submission) = self.submissions.try_recv()
            {
                group.add(submission);
            }
            let valve = Arc::clone(&self.valve);
            {
                let mut turn = std::pin::pin!(self.turn(group));
                match timeout(PATIENCE, &mut turn).await {
                    Ok(done) => done?,
                    Err(_) => {
                        valve.close(Cause::Commits);
                        turn.await?;
                    }
                }
            }
            match self.stuck.are_many() {
                true => valve.close(Cause::Commits),
                false => valve.open(Cause::Commits),
            }
        }
    }

    async fn turn(&mut self, group: Group) -> Result<(), Finished> {
        if group.is_empty() && !self.stuck.is_due() {
            return self.check().await;
        }
        for item in self.stuck.take_due() {
            self.commit_alone(item).await?;
        }
        match group.is_empty() {
            true => Ok(()),
            false => self.commit(group).await,
        }
    }

    async fn check(&mut self) -> Result<(), Finished> {
        match line::check(&mut self.conn).await {
            Ok(()) => Ok(()),
            Err(problem) => self.reconnect(&problem).await,
        }
    }

    /// Halves a group that PostgreSQL refuses until the rows at fault are alone. Order is kept.
    async fn commit(&mut self, group: Group) -> Result<(), Finished> {
        metrics::histogram!("recado_gateway_commit_rows").record(group.len() as f64);
        let mut parts = vec![group.into_items()];
        while let Some(mut part) = parts.pop() {
            match part.len() {
                0 => {}
                1 => self.commit_alone(part.remove(0)).await?,
                _ => match self.commit_part(&part).await? {
                    Verdict::Committed => part.into_iter().for_each(Item::committed),
                    Verdict::Refused(_) | Verdict::Unclear(_) => {
                        let second = part.split_off(part.len() / 2);
                        parts.extend([second, part]);
                    }
                },
            }
        }
        Ok(())
    }

    /// Commits a row, or what can be kept of it. What cannot be committed at all is put by and tried
    /// again: never acknowledged, never in the way of others.
    async fn commit_alone(&mut self, item: Item) -> Result<(), Finished> {
        let reason = match self.commit_row(&item.entry.row).await? {
            Verdict::Committed => {
                item.committed();
                return Ok(());
            }
            Verdict::Refused(reason) | Verdict::Unclear(reason) => reason,
        };
        let kept = item.entry.kept_raw(&reason);
        match self.commit_row(&kept).await? {
            Verdict::Committed => item.committed(),
            Verdict::Refused(error) | Verdict::Unclear(error) => {
                tracing::error!(id = %kept.id, connection_id = %kept.connection_id, reason, error,
                    "a message cannot be committed in any form: it stays unacknowledged");
                metrics::counter!("recado_gateway_stuck_total").increment(1);
                self.stuck.add(item);
            }
        }
        Ok(())
    }

    async fn commit_row(&mut self, row: &NewMessage) -> Result<Verdict, Finished> {
        let mut tries = 1;
        loop {
            let verdict = self.commit_rows(&[row]).await?;
            match verdict {
                Verdict::Unclear(_) if tries < UNCLEAR_TRIES => tries += 1,
                verdict => return Ok(verdict),
            }
            tokio::time::sleep(UNCLEAR_PAUSE).await;
        }
    }

    async fn commit_part(&mut self, part: &[Item]) -> Result<Verdict, Finished> {
        let rows: Vec<&NewMessage> = part.iter().map(|item| &item.entry.row).collect();
        self.commit_rows(&rows).await
    }

    /// One transaction, again and again while it is not the rows that fail it.
    async fn commit_rows(&mut self, rows: &[&NewMessage]) -> Result<Verdict, Finished> {
        let mut backoff = Backoff::default();
        loop {
            let started = Instant::now();
            let span = tracing::debug_span!("commit", rows = rows.len());
            let accepted = inbox::accept(&mut self.conn, rows).instrument(span);
            let accepted = timeout(LONGEST_TRANSACTION, accepted).await;
            let error = match accepted {
                Ok(Ok(accepted)) => {
                    metrics::histogram!("recado_gateway_commit_seconds").record(started.elapsed());
                    metrics::counter!("recado_gateway_messages_committed_total")
                        .increment(accepted.messages as u64);
                    self.bell.ring(accepted.events);
                    return Ok(Verdict::Committed);
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    self.reconnect("a transaction took too long").await?;
                    continue;
                }
            };
            let failure = classify(&error);
            if failure == Failure::Permanent {
                return Ok(Verdict::Refused(error.to_string()));
            }
            if line::check(&mut self.conn).await.is_err() {
                self.reconnect(&error.to_string()).await?;
            } else if failure == Failure::Unclear {
                return Ok(Verdict::Unclear(error.to_string()));
            } else {
                tracing::warn!(%error, "a commit is tried again");
                backoff.pause().await;
            }
        }
    }

    async fn reconnect(&mut self, why: &str) -> Result<(), Finished> {
        metrics::counter!("recado_gateway_reconnects_total").increment(1);
        tracing::warn!(
            error = why,
            "the connection to PostgreSQL is lost: nothing is acknowledged"
        );
        self.conn = tokio::select! {
            conn = line::connect(&self.database) => conn,
            () = self.finish.cancelled() => return Err(Finished),
        };
        tracing::info!("PostgreSQL is back");
        Ok(())
    }
}
