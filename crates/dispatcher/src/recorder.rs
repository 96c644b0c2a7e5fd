//! Writes what became of claims, many in one commit. There is no fixed rhythm: what gathers while commits
//! run goes into the next one. Two recorders share the work, so that one gathers, or waits for the disk,
//! while the other writes.
//!
//! An outcome is held until PostgreSQL has it. A record that PostgreSQL will never take is found by
//! splitting its batch, and written without the receiver's words.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use domain::claim::{self, Release};
use domain::failure::Failure;
use domain::record::{self, Record};
use queue::Doorbell;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Mutex, OwnedSemaphorePermit, watch};
use tokio::time::sleep;

use crate::link::{Link, LinkError};
use crate::meters::Meters;
use crate::outage::Outage;

/// The most entries of one commit.
const BATCH: usize = 500;
/// With so many a commit isn't put off.
const ENOUGH: usize = 50;
/// For how long a commit is put off, so that a trickle isn't a commit each.
const LINGER: Duration = Duration::from_millis(4);
/// How often an unclear error is taken for a bad moment before it is taken for a bad record.
const UNCLEAR_TRIES: u32 = 3;
/// An event whose outcome can't be recorded is due again after this.
const AFTER_REFUSAL: f64 = 60.0;

/// What became of one claim.
pub(crate) struct Entry {
    pub(crate) what: What,
    pub(crate) permit: OwnedSemaphorePermit,
}

pub(crate) enum What {
    Attempt(Record),
    Release(Release),
}

pub(crate) struct Recorder {
    link: Link,
    outage: Outage,
    shared: Arc<Shared>,
}

/// What recorders have in common.
pub(crate) struct Shared {
    doorbell: Doorbell,
    /// Held by the one who gathers.
    entries: Mutex<UnboundedReceiver<Entry>>,
    /// How many of them get nothing through. While one doesn't, nothing is to be claimed: it might be
    /// what that one holds the outcome of.
    stuck: watch::Sender<usize>,
    meters: Arc<Meters>,
}

/// These records are at fault, and not the moment.
struct AtFault;

impl Shared {
    pub(crate) fn new(
        doorbell: Doorbell,
        entries: UnboundedReceiver<Entry>,
        meters: Arc<Meters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            doorbell,
            entries: Mutex::new(entries),
            stuck: watch::Sender::new(0),
            meters,
        })
    }

    /// How many recorders get nothing through.
    pub(crate) fn stuck(&self) -> watch::Receiver<usize> {
        self.stuck.subscribe()
    }

    /// Waits for entries; `false` when there will be no more.
    async fn gather(&self, batch: &mut Vec<Entry>) -> bool {
        let mut entries = self.entries.lock().await;
        if batch.is_empty() && entries.recv_many(batch, BATCH).await == 0 {
            return false;
        }
        if batch.len() + entries.len() < ENOUGH && !entries.is_closed() {
            sleep(LINGER).await;
        }
        while batch.len() < BATCH
            && let Ok(entry) = entries.try_recv()
        {
            batch.push(entry);
        }
        true
    }
}

impl Recorder {
    pub(crate) fn new(link: Link, shared: Arc<Shared>) -> Self {
        Self {
            link,
            outage: Outage::new("recorder"),
            shared,
        }
    }

    /// Records until nobody is left who could have something to record.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.shared.gather(&mut batch).await {
            let mut events = HashSet::with_capacity(batch.len());
            // A batch speaks of an event once; what it would say again is said in the next one.
            let (now, next): (Vec<_>, Vec<_>) = batch
                .drain(..)
                .partition(|entry| events.insert(entry.what.event_id()));
            batch.extend(next);
            self.write(now).await;
        }
    }

    async fn write(&mut self, entries: Vec<Entry>) {
        let count = entries.len();
        let (mut records, mut releases) = (Vec::with_capacity(entries.len()), Vec::new());
        let mut permits: Option<OwnedSemaphorePermit> = None;
        for entry in entries {
            match entry.what {
                What::Attempt(record) => records.push(record),
                What::Release(release) => releases.push(release),
            }
            match &mut permits {
                Some(permits) => permits.merge(entry.permit),
                None => permits = Some(entry.permit),
            }
        }
        if !records.is_empty() {
            self.record(records).await;
        }
        if !releases.is_empty() {
            self.release(&releases).await;
        }
        // Together, so that the next claim is as large.
        drop(permits);
        self.shared.meters.claimed.decrement(count as f64);
    }

    async fn record(&mut self, records: Vec<Record>) {
        let mut groups = vec![records];
        while let Some(mut group) = groups.pop() {
            if self.record_group(&group).await.is_ok() {
                continue;
            }
            if group.len() > 1 {
                let rest = group.split_off(group.len() / 2);
                groups.extend([rest, group]);
            } else if group.iter_mut().any(strip) {
                groups.push(group);
            } else {
                self.refuse(&group).await;
            }
        }
    }

    /// Tries until these are recorded, or it is clear that they can't be.
    async fn record_group(&mut self, group: &[Record]) -> Result<(), AtFault> {
        let mut unclear = 0;
        loop {
            match self
                .link
                .run(async |conn| record::record(conn, group).await)
                .await
            {
                Ok(recorded) => {
                    self.over();
                    self.shared.meters.batch.record(group.len() as f64);
                    let superseded = recorded.superseded as u64;
                    self.shared.meters.superseded.increment(superseded);
                    self.ring(recorded.due);
                    return Ok(());
                }
                Err(error) => {
                    unclear += u32::from(error.failure() == Failure::Unclear);
                    if error.failure() == Failure::Permanent || unclear >= UNCLEAR_TRIES {
                        tracing::error!(records = group.len(), "refused to record: {error}");
                        return Err(AtFault);
                    }
                    self.failed(error).await;
                }
            }
        }
    }

    /// Announces what is due now, which the poller would find too. Nobody waits for it.
    fn ring(&self, due: Vec<uuid::Uuid>) {
        if due.is_empty() {
            return;
        }
        let doorbell = self.shared.doorbell.clone();
        tokio::spawn(async move {
            if let Err(error) = doorbell.ring_events(&due).await {
                tracing::debug!("not rung: {error}");
            }
        });
    }

    /// A record that is refused without any text of the receiver's. Its claim is given back, which
    /// also proves that PostgreSQL takes writes.
    async fn refuse(&mut self, group: &[Record]) {
        for record in group {
            let event = record.event_id;
            tracing::error!(%event, "its attempt can't be recorded; it will be attempted again");
            self.shared.meters.unrecordable.increment(1);
            let release = Release {
                event_id: record.event_id,
                webhook_id: record.webhook_id,
                token: record.token,
                delay_seconds: AFTER_REFUSAL,
                park: None,
            };
            self.release(&[release]).await;
        }
    }

    async fn release(&mut self, releases: &[Release]) {
        loop {
            match self
                .link
                .run(async |conn| claim::release(conn, releases).await)
                .await
            {
                Ok(_) => return self.over(),
                Err(error) => self.failed(error).await,
            }
        }
    }

    fn over(&mut self) {
        if !self.outage.is_over() {
            self.outage.over();
            self.shared.stuck.send_modify(|stuck| *stuck -= 1);
        }
    }

    async fn failed(&mut self, error: LinkError) {
        if self.outage.is_over() {
            self.shared.stuck.send_modify(|stuck| *stuck += 1);
        }
        sleep(self.outage.failed(error)).await;
    }
}

impl What {
    fn event_id(&self) -> uuid::Uuid {
        match self {
            Self::Attempt(record) => record.event_id,
            Self::Release(release) => release.event_id,
        }
    }
}

/// Removes what the receiver had a say in; `false` when nothing is left to remove.
fn strip(record: &mut Record) -> bool {
    let class = record.error_class.map(str::to_owned);
    let had = record.response.is_some() || record.error != class;
    record.response = None;
    record.error = class;
    had
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use diesel::prelude::*;
    use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
    use domain::record::Outcome;
    use domain::schema::whatsapp_webhook_events as events;
    use testkit::{Database, RedisDatabase};
    use tokio::sync::mpsc;
    use uuid::Uuid;

    use super::*;
    use crate::intake::Budget;

    const WEBHOOK: Uuid = Uuid::from_u128(1);
    const TOKEN: Uuid = Uuid::from_u128(2);

    /// A database with so many events under a claim.
    async fn claimed(count: u32) -> Database {
        let database = Database::create().await;
        let sql = format!(
            r#"INSERT INTO clients (name) VALUES ('acme');
               INSERT INTO whatsapp_webhooks (id, client_id, phone_number, phone_key, webhook_url, secret)
               VALUES ('{WEBHOOK}', 1, '1', '1', 'https://example.com', '');
               INSERT INTO whatsapp_webhook_events (id, client_id, webhook_id, source_id, event_type,
                   message_id, chat, "from", "to", message_type, content, metadata, "timestamp", claim_token)
               SELECT lpad(to_hex(n), 32, '0')::uuid, 1, '{WEBHOOK}', '{WEBHOOK}', 'message',
                   '', '', '', '', 'text', '', '{{}}', now(), '{TOKEN}'
               FROM generate_series(1, {count}) AS n"#
        );
        database.connect().await.batch_execute(&sql).await.unwrap();
        database
    }

    fn attempt(event: u128, response: &str) -> Record {
        Record {
            attempt_id: Uuid::now_v7(),
            event_id: Uuid::from_u128(event),
            client_id: 1,
            webhook_id: WEBHOOK,
            token: TOKEN,
            attempt: 1,
            batch_id: None,
            probe: false,
            started_at: Utc::now(),
            duration_ms: 1,
            http_status: Some(200),
            error_class: None,
            error: None,
            response: Some(response.to_owned()),
            leave_alone: 0.0,
            outcome: Outcome::Delivered,
        }
    }

    /// Records all of it, as a dispatcher does that stops.
    async fn recorded(database: &Database, what: Vec<What>) -> Budget {
        let budget = Budget::new(what.len());
        let mut room = budget.take(what.len()).await;
        let (sender, entries) = mpsc::unbounded_channel();
        for what in what {
            let permit = room.split(1).unwrap();
            assert!(sender.send(Entry { what, permit }).is_ok());
        }
        drop(sender);
        let link = Link::new(database.config());
        let doorbell = Doorbell::new(RedisDatabase::acquire().await.pool());
        let shared = Shared::new(doorbell, entries, Arc::new(Meters::new()));
        Recorder::new(link, shared).run().await;
        budget
    }

    async fn responses(database: &Database) -> Vec<(String, Option<String>)> {
        events::table
            .order(events::id)
            .select((events::status, events::response))
            .load(&mut database.connect().await)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_poison_record_is_written_without_the_receivers_words_and_hurts_no_other() {
        let database = claimed(9).await;
        let what = (1..=9)
            .map(|n| What::Attempt(attempt(n, if n == 6 { "a\0b" } else { "fine" })))
            .collect();
        let budget = recorded(&database, what).await;
        for (number, (status, response)) in (1..).zip(responses(&database).await) {
            let expected = (number != 6).then(|| "fine".to_owned());
            assert_eq!((status.as_str(), response), ("delivered", expected));
        }
        assert_eq!(
            budget.take(9).await.num_permits(),
            9,
            "all room is free again"
        );
    }

    #[tokio::test]
    async fn two_outcomes_of_one_event_are_written_one_after_the_other() {
        let database = claimed(1).await;
        let mut late = attempt(1, "late");
        late.token = Uuid::from_u128(3);
        let what = vec![What::Attempt(attempt(1, "first")), What::Attempt(late)];
        recorded(&database, what).await;
        let expected = ("delivered".to_owned(), Some("first".to_owned()));
        assert_eq!(responses(&database).await, [expected]);
        let superseded: i64 = domain::schema::whatsapp_delivery_attempts::table
            .filter(domain::schema::whatsapp_delivery_attempts::superseded)
            .count()
            .get_result(&mut database.connect().await)
            .await
            .unwrap();
        assert_eq!(superseded, 1);
    }
}
