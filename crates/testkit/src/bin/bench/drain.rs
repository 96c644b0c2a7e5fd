//! A backlog, as fast as it goes: claims, deliveries, and every attempt recorded.

use std::fmt;
use std::time::Duration;

use anyhow::ensure;
use testkit::Program;

use crate::machine::{Busy, Usage, peak_mib};
use crate::seed::Numbers;
use crate::sink::Summary;
use crate::stage::{self, Stage};

/// Besides what so much work takes at a pace that would be a failure.
const PATIENCE: Duration = Duration::from_secs(60);
const SLOWEST_PER_SECOND: usize = 1000;

/// What there is to deliver, and by how many.
pub(crate) struct Backlog<'a> {
    /// The webhooks'.
    pub(crate) urls: &'a [String],
    pub(crate) events: usize,
    pub(crate) dispatchers: usize,
}

/// What came of a drain.
pub(crate) struct Drained {
    pub(crate) events: usize,
    /// Arrivals a second at the receiver, from the first to the last.
    pub(crate) per_second: f64,
    /// The most memory that a dispatcher had.
    pub(crate) peak_mib: f64,
    /// Who worked, from the start to the last record.
    pub(crate) busy: Busy,
}

impl Drained {
    /// What a delivery takes of whom, and whether that is what takes the time.
    pub(crate) fn bound(&self) -> String {
        let each = self.busy.each_of(self.events);
        format!("µs a delivery: {each}; {}", self.busy.idle())
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:.0}/s; {}; processors busy: {}",
            self.per_second,
            self.bound(),
            self.busy
        )
    }
}

/// Delivers a backlog, and fails unless all of it was delivered once and is on record.
pub(crate) async fn drain(stage: &Stage, backlog: &Backlog<'_>) -> anyhow::Result<Drained> {
    let database = stage.clear().await?;
    let mut conn = database.connect().await;
    let mut numbers = Numbers::link(&mut conn, backlog.urls).await?;
    let events = numbers.backlog(&mut conn, backlog.events).await?;
    stage.doorbell()?.ring_events(&events).await?;
    let before = Usage::now(&stage.processes(&[]));
    let starting = (0..backlog.dispatchers).map(|_| stage.dispatcher(&database));
    let dispatchers = futures_util::future::join_all(starting).await;
    stage.sink.holds(events.len(), limit(events.len())).await;
    stage::settled(&mut conn, PATIENCE).await;
    let busy = before.until(&Usage::now(&stage.processes(&dispatchers)));
    let peaks = dispatchers.iter().map(|one| peak_mib(one.pid()));
    let peak_mib = peaks.fold(0.0, f64::max);
    stage::stop(dispatchers).await?;
    let summary = stage.sink.summary().await?;
    arrived_once(&summary, events.len())?;
    stage::audit(&mut conn, events.len()).await?;
    Ok(Drained {
        events: events.len(),
        per_second: summary.rate(),
        peak_mib,
        busy,
    })
}

/// Sends as many requests without anything durable: A.
pub(crate) async fn baseline(stage: &Stage, count: usize) -> anyhow::Result<Drained> {
    stage.sink.reset().await?;
    let program = Program::new("recado-bench").arg("baseline");
    let program = program.arg("--url").arg(stage.sink.url("/hooks/"));
    let before = Usage::now(&stage.processes(&[]));
    let ended = program.arg("--count").arg(count).run().await;
    let busy = before.until(&Usage::now(&stage.processes(&[])));
    ensure!(
        ended.status.success(),
        "the baseline ended with {}: {}",
        ended.status,
        ended.stderr
    );
    let summary = stage.sink.summary().await?;
    arrived_once(&summary, count)?;
    Ok(Drained {
        events: count,
        per_second: summary.rate(),
        peak_mib: f64::NAN,
        busy,
    })
}

/// The round in the middle.
pub(crate) fn typical(rounds: &[Drained]) -> &Drained {
    let mut all: Vec<_> = rounds.iter().collect();
    all.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    all[all.len() / 2]
}

fn limit(events: usize) -> Duration {
    PATIENCE + Duration::from_secs((events / SLOWEST_PER_SECOND) as u64)
}

fn arrived_once(summary: &Summary, events: usize) -> anyhow::Result<()> {
    ensure!(
        summary.answered == events && summary.distinct == events,
        "of {events} events {} arrived, in {} requests",
        summary.distinct,
        summary.answered
    );
    Ok(())
}
