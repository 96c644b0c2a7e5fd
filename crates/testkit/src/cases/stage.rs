use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::ensure;
use rand::RngExt;
use tokio::time::sleep;
use uuid::Uuid;

use super::Scale;
use super::invariants::{self, Observed};
use super::traffic::{self, Sent, Traffic};
use crate::eventually;
use crate::servers::Server;
use crate::system::{Account, System};

/// What was held by a dispatcher that died is due again after less.
const SETTLING: Duration = Duration::from_secs(90);
const PATIENCE: Duration = Duration::from_secs(15);
/// A fault strikes so soon after its turn in the traffic, at random.
const LATEST: Duration = Duration::from_millis(120);

/// A system under traffic, and what was done to it.
pub(super) struct Stage {
    pub(super) system: System,
    pub(super) faults: usize,
    accounts: Vec<Account>,
    traffic: Traffic,
    messages: usize,
    told: Told,
}

/// What is told of a case besides the figures that all have.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) kills: usize,
    pub(super) extra: Vec<(&'static str, String)>,
    /// What `verify` found.
    pub(super) broken: Vec<String>,
    overslept: HashMap<Uuid, usize>,
    crashes: usize,
}

impl Stage {
    /// Connects the accounts, and lets the traffic begin.
    pub(super) async fn set(system: System, scale: &Scale) -> anyhow::Result<Self> {
        system.records().await?.watch_steps_back().await?;
        let accounts = system.open_many(scale.accounts).await?;
        // Two for each account are for afterwards.
        let messages = scale.messages - 2 * accounts.len();
        let phones = system.phones.clone();
        Ok(Self {
            traffic: Traffic::start(phones, accounts.clone(), messages, scale.rate),
            system,
            faults: scale.faults,
            accounts,
            messages,
            told: Told::default(),
        })
    }

    /// Waits for the random moment of a fault: each has its share of the traffic, and strikes in it.
    pub(super) async fn moment(&mut self, fault: usize) -> anyhow::Result<()> {
        self.moment_before(fault, 0.75).await
    }

    /// Waits for the random moment of a fault whose consequences take the rest of its share.
    pub(super) async fn moment_before(&mut self, fault: usize, part: f64) -> anyhow::Result<()> {
        let share = self.messages / self.faults;
        let (within, late) = {
            let mut random = rand::rng();
            (
                random.random_range(share / 8..(share as f64 * part) as usize),
                random.random_range(Duration::ZERO..LATEST),
            )
        };
        self.traffic.reaches(fault * share + within).await?;
        sleep(late).await;
        self.told.kills += 1;
        Ok(())
    }

    /// From now on the receiver answers later.
    pub(super) async fn answer_late(&self, delay: Duration) -> anyhow::Result<()> {
        for account in &self.accounts {
            let path = format!("/hooks/{}", account.phone);
            self.system.postbox.delay(&path, delay).await?;
        }
        Ok(())
    }

    /// Something about this case that is to be told.
    pub(super) fn tell(&mut self, name: &'static str, value: impl ToString) {
        self.told.extra.push((name, value.to_string()));
    }

    /// These events' claims ran out in the hands of a dispatcher that stood still.
    pub(super) fn overslept(&mut self, events: impl IntoIterator<Item = Uuid>) {
        for event in events {
            *self.told.overslept.entry(event).or_default() += 1;
        }
    }

    /// PostgreSQL loses what had not reached its disk.
    pub(super) async fn crash_postgres(&mut self) {
        self.told.crashes += 1;
        self.system.servers.crash(Server::Postgres).await;
    }

    /// While the gateway is dead: all that WhatsApp knows as received is in PostgreSQL.
    pub(super) async fn nothing_acked_is_uncommitted(&self) -> anyhow::Result<()> {
        let phones = &self.system.phones;
        // Then its last receipts have been read.
        eventually(PATIENCE, async || match phones.online().await {
            Ok(0) => Ok(()),
            Ok(online) => Err(format!("{online} accounts of a dead gateway are online")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await;
        self.acked_is_committed().await
    }

    /// All that WhatsApp knows as received is in PostgreSQL.
    pub(super) async fn acked_is_committed(&self) -> anyhow::Result<()> {
        // In this order: what was acknowledged when the one was read is in the other.
        let ledger = self.system.phones.ledger().await?;
        let messages = self.system.records().await?.messages().await?;
        let lost = invariants::acked_but_not_committed(&ledger, &messages);
        ensure!(
            lost.is_empty(),
            "{} acknowledged messages are not in PostgreSQL, such as {:?}",
            lost.len(),
            lost.first()
        );
        Ok(())
    }

    /// Lets the traffic end and the system come to rest, and observes what became of each message.
    pub(super) async fn end(self) -> anyhow::Result<(Told, Observed)> {
        let Self {
            mut system,
            accounts,
            traffic,
            mut told,
            ..
        } = self;
        let mut sent = traffic.end().await?;
        settle(&system, &sent).await?;
        for account in &accounts {
            system.connected(account.user).await;
        }
        let afterwards = traffic::write_to_all(&system.phones, &accounts, sent.len()).await?;
        sent.extend(afterwards);
        settle(&system, &sent).await?;
        // What they do is over once they have ended.
        for dispatcher in &mut system.dispatchers {
            let status = dispatcher.stop().await;
            ensure!(status.success(), "a dispatcher ended with {status}");
        }
        told.broken = system.verify().await?;
        let mut records = system.records().await?;
        let observed = Observed {
            accounts,
            sent,
            ledger: system.phones.ledger().await?,
            messages: records.messages().await?,
            events: records.events().await?,
            attempts: records.attempts().await?,
            steps_back: records.steps_back().await?,
            overslept: std::mem::take(&mut told.overslept),
            crashes: told.crashes,
            arrivals: system.postbox.since(0).await?,
        };
        Ok((told, observed))
    }
}

/// Waits until every message was acknowledged and arrived, and no event is pending. When that doesn't
/// happen, the invariants say what is missing.
async fn settle(system: &System, sent: &[Sent]) -> anyhow::Result<()> {
    let mut records = system.records().await?;
    let mut arrived = HashSet::new();
    let mut last = 0;
    eventually(SETTLING, async || {
        let look = async {
            let ledger = system.phones.ledger().await?;
            let unacked = ledger.iter().filter(|message| message.acked_at.is_none()).count();
            for arrival in system.postbox.since(last).await? {
                last = arrival.sequence;
                arrived.insert(arrival.field("message_id"));
            }
            anyhow::Ok((unacked, records.pending().await?))
        };
        match look.await {
            Ok((0, 0)) if arrived.len() >= sent.len() => Ok(()),
            Ok((unacked, pending)) => Err(format!(
                "of {} messages {unacked} are not acknowledged, {} have arrived; {pending} events are pending",
                sent.len(),
                arrived.len(),
            )),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await;
    Ok(())
}
