//! From the simulator's send to the first byte at the receiver, by the clock that both share.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use testkit::eventually;
use testkit::system::phones::Letter;
use testkit::system::{Account, Settings, System};
use tokio::time::sleep;

use super::Extent;
use crate::machine::Usage;
use crate::percentile::percentile;
use crate::report::Row;

/// Before the first round, so that pools are open and caches warm.
const WARM_UP: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(60);
const CONTACTS: usize = 5;

/// What this measures.
pub(super) const ROWS: [&str; 2] = [P50, P99];
const P50: &str = "whatsapp_to_receiver_p50_ms";
const P99: &str = "whatsapp_to_receiver_p99_ms";
const LOAD: Load = Load {
    accounts: 50,
    per_second: 500,
    seconds: 30,
};

struct Load {
    accounts: usize,
    per_second: usize,
    seconds: usize,
}

/// Measures so many rounds on one system.
pub(super) async fn measure(extent: &Extent) -> anyhow::Result<Vec<Row>> {
    let system = System::start(Settings::default()).await?;
    let accounts = system.open_many(LOAD.accounts).await?;
    let Load {
        accounts: count,
        per_second,
        seconds,
    } = LOAD;
    println!("{per_second} messages/s over {count} accounts for {seconds} s");
    send(&system, &accounts, WARM_UP.as_secs() as usize, 0).await?;
    let mut since = last(&system, 0).await?;
    let (mut p50, mut p99, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=extent.rounds {
        let before = Usage::now(&system.processes());
        let ids = send(&system, &accounts, seconds, since).await?;
        let busy = before.until(&Usage::now(&system.processes()));
        let stages = Stages::of(&system, &ids, since).await?;
        since = last(&system, since).await?;
        p50.push(percentile(&stages.whole, 0.50));
        p99.push(percentile(&stages.whole, 0.99));
        println!(
            "round {number}: {} messages, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; processors busy: {busy}",
            ids.len(),
            percentile(&stages.whole, 0.50),
            percentile(&stages.whole, 0.99),
            percentile(&stages.whole, 1.0)
        );
        notes.push(format!(
            "to the begin of the commit p50 {:.2}, p99 {:.2} ms; from there p50 {:.2}, p99 {:.2} ms",
            percentile(&stages.to_commit, 0.50),
            percentile(&stages.to_commit, 0.99),
            percentile(&stages.from_commit, 0.50),
            percentile(&stages.from_commit, 0.99),
        ));
    }
    system.stop().await?;
    let note = notes.pop().unwrap_or_default();
    Ok(vec![
        Row::of(P50, "ms", p50),
        Row::of(P99, "ms", p99).with_note(note),
    ])
}

/// Lets people write at that rate, and waits until all has arrived. Returns the messages' ids.
async fn send(
    system: &System,
    accounts: &[Account],
    seconds: usize,
    since: u64,
) -> anyhow::Result<Vec<String>> {
    let contacts: Vec<_> = (0..CONTACTS).map(|n| format!("4930{n:07}")).collect();
    let rate = LOAD.per_second as f64 / accounts.len() as f64;
    // One account after the other, so that they don't all send at the same moment.
    let turn = Duration::from_secs_f64(1.0 / LOAD.per_second as f64);
    let calls = accounts.iter().zip(0u32..).map(|(account, number)| {
        let letter = Letter {
            to: &account.phone,
            from: &contacts,
            text: "Bom dia! Vocês abrem hoje? Queria encomendar um bolo para sábado.",
            group: None,
            name: None,
            count: LOAD.per_second * seconds / accounts.len(),
            rate: Some(rate),
        };
        async move {
            sleep(turn * number).await;
            system.phones.write(&letter).await
        }
    });
    let ids = try_join_all(calls).await?.concat();
    let limit = PATIENCE + Duration::from_secs(seconds as u64);
    // The look itself costs the receiver something: seldom.
    sleep(Duration::from_secs(seconds as u64)).await;
    eventually(limit, async || match last(system, since).await {
        Ok(now) if now >= since + ids.len() as u64 => Ok(()),
        Ok(now) => Err(format!("{} of {} messages arrived", now - since, ids.len())),
        Err(error) => Err(format!("{error:#}")),
    })
    .await;
    Ok(ids)
}

/// The sequence number of the receiver's last request, or the given one when none came after it.
async fn last(system: &System, since: u64) -> anyhow::Result<u64> {
    let arrivals = system.postbox.since(since).await?;
    Ok(arrivals.last().map_or(since, |last| last.sequence))
}

/// Milliseconds, sorted.
struct Stages {
    whole: Vec<f64>,
    to_commit: Vec<f64>,
    from_commit: Vec<f64>,
}

impl Stages {
    /// Of messages that arrived after that one of the receiver's sequence numbers.
    async fn of(system: &System, ids: &[String], since: u64) -> anyhow::Result<Self> {
        let ledger = system.phones.ledger().await?;
        let sent: HashMap<_, _> = ledger
            .iter()
            .map(|one| (one.id.as_str(), one.sent_at))
            .collect();
        let events = system.records().await?.events().await?;
        let begun: HashMap<_, _> = events
            .iter()
            .map(|one| (one.message_id.as_str(), one.created_at))
            .collect();
        let mut arrived = HashMap::<_, DateTime<Utc>>::new();
        for arrival in system.postbox.since(since).await? {
            let id = arrival
                .field("message_id")
                .as_str()
                .unwrap_or_default()
                .to_owned();
            arrived.entry(id).or_insert(arrival.received_at);
        }
        let (mut whole, mut to_commit, mut from_commit) = (Vec::new(), Vec::new(), Vec::new());
        for id in ids {
            let sent = *sent
                .get(id.as_str())
                .context("a message that the simulator forgot")?;
            let begun = *begun
                .get(id.as_str())
                .context("a message without an event")?;
            let arrived = *arrived.get(id).context("a message that never arrived")?;
            whole.push(millis(sent, arrived));
            to_commit.push(millis(sent, begun));
            from_commit.push(millis(begun, arrived));
        }
        for stage in [&mut whole, &mut to_commit, &mut from_commit] {
            stage.sort_by(f64::total_cmp);
        }
        Ok(Self {
            whole,
            to_commit,
            from_commit,
        })
    }
}

/// The simulator's times are of whole milliseconds, rounded down: what is measured is up to one too much.
fn millis(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).num_microseconds().unwrap_or(i64::MAX) as f64 / 1000.0
}
