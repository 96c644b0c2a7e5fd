//! Messages at a steady rate, committed and rung as a gateway does it.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use diesel_async::AsyncPgConnection;
use domain::inbox;
use queue::Doorbell;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use crate::machine::{Busy, Usage, peak_mib};
use crate::seed::Numbers;
use crate::sink::{HANG, now};
use crate::stage::Stage;

/// Before what is measured, so that connections are open and caches warm.
pub(crate) const WARM_UP: Duration = Duration::from_secs(3);
/// For what has not arrived when the last message is committed.
const PATIENCE: Duration = Duration::from_secs(15);
/// Messages of one commit at most.
const BATCH: usize = 500;

pub(crate) struct Load {
    pub(crate) per_second: u32,
    pub(crate) time: Duration,
}

/// What came of it.
pub(crate) struct Steady {
    /// Milliseconds from the commit to the receiver, sorted, of the events whose receiver answers. One
    /// that never came counts with the time that was waited for it.
    pub(crate) latencies: Vec<f64>,
    pub(crate) missing: usize,
    pub(crate) peak_mib: f64,
    pub(crate) busy: Busy,
}

/// Sends messages to the webhooks of these URLs in turn, through one dispatcher.
pub(crate) async fn steady(stage: &Stage, urls: &[String], load: &Load) -> anyhow::Result<Steady> {
    let database = stage.clear().await?;
    let mut conn = database.connect().await;
    let numbers = Numbers::link(&mut conn, urls).await?;
    let mut gateway = Gateway::new(numbers, conn, stage.doorbell()?);
    let dispatchers = [stage.dispatcher(&database).await];
    gateway.work(load.per_second, WARM_UP).await?;
    let before = Usage::now(&stage.processes(&dispatchers));
    let committed = gateway.work(load.per_second, load.time).await?;
    let busy = before.until(&Usage::now(&stage.processes(&dispatchers)));
    let hanging = urls.iter().filter(|url| url.contains(HANG)).count();
    let answering = gateway.committed * (urls.len() - hanging) / urls.len();
    // Whatever has not come by then is told, not failed.
    let _ = timeout(PATIENCE, stage.sink.holds(answering, PATIENCE * 2)).await;
    let peak_mib = peak_mib(dispatchers[0].pid());
    // Those that hang would be waited for.
    let [mut dispatcher] = dispatchers;
    dispatcher.kill().await;
    let healthy = committed.into_iter();
    let healthy = healthy.filter(|one| !urls[one.number % urls.len()].contains(HANG));
    // Of an event that came twice the first time counts.
    let arrived: HashMap<_, _> = stage.sink.times().await?.into_iter().rev().collect();
    let (latencies, missing) = latencies(healthy, &arrived, now());
    Ok(Steady {
        latencies,
        missing,
        peak_mib,
        busy,
    })
}

/// An event, and when its commit returned, in microseconds since 1970.
pub(crate) struct Committed {
    /// Of its message, from 0.
    number: usize,
    event: Uuid,
    at: u64,
}

/// What a gateway does with messages once they are decrypted.
pub(crate) struct Gateway {
    numbers: Numbers,
    conn: AsyncPgConnection,
    bell: UnboundedSender<Vec<Uuid>>,
    /// Messages so far.
    pub(crate) committed: usize,
}

impl Gateway {
    pub(crate) fn new(numbers: Numbers, conn: AsyncPgConnection, doorbell: Doorbell) -> Self {
        let (bell, rung) = unbounded_channel();
        // Ends with its sender.
        tokio::spawn(ring(doorbell, rung));
        Self {
            numbers,
            conn,
            bell,
            committed: 0,
        }
    }

    /// Takes messages at that rate. While one commit runs, the next batch gathers.
    pub(crate) async fn work(
        &mut self,
        per_second: u32,
        time: Duration,
    ) -> anyhow::Result<Vec<Committed>> {
        let total = (f64::from(per_second) * time.as_secs_f64()) as usize;
        let mut all = Vec::with_capacity(total);
        let start = Instant::now();
        while all.len() < total {
            let came = (start.elapsed().as_secs_f64() * f64::from(per_second)) as usize + 1;
            let size = came.min(total).saturating_sub(all.len()).min(BATCH);
            if size > 0 {
                self.commit(size, &mut all).await?;
            } else {
                let next = all.len() as f64 / f64::from(per_second);
                sleep_until(start + Duration::from_secs_f64(next)).await;
            }
        }
        Ok(all)
    }

    async fn commit(&mut self, size: usize, all: &mut Vec<Committed>) -> anyhow::Result<()> {
        let messages: Vec<_> = (0..size).map(|_| self.numbers.message()).collect();
        let batch: Vec<_> = messages.iter().collect();
        let events = inbox::accept(&mut self.conn, &batch).await?.events;
        let at = now();
        ensure!(events.len() == size, "a message without an event");
        all.extend(
            events
                .iter()
                .zip(self.committed..)
                .map(|(event, number)| Committed {
                    number,
                    event: *event,
                    at,
                }),
        );
        self.committed += size;
        self.bell.send(events).context("the bell")
    }
}

async fn ring(doorbell: Doorbell, mut committed: UnboundedReceiver<Vec<Uuid>>) {
    let mut gathered = Vec::new();
    while committed.recv_many(&mut gathered, BATCH).await > 0 {
        let events: Vec<_> = gathered.drain(..).flatten().collect();
        if let Err(error) = doorbell.ring_events(&events).await {
            eprintln!("not rung: {error}");
        }
    }
}

/// Milliseconds, sorted, and how many never arrived.
fn latencies(
    committed: impl Iterator<Item = Committed>,
    arrived: &HashMap<Uuid, u64>,
    now: u64,
) -> (Vec<f64>, usize) {
    let mut missing = 0;
    let mut all: Vec<_> = committed
        .map(|Committed { event, at, .. }| {
            let arrived = arrived.get(&event).copied().unwrap_or_else(|| {
                missing += 1;
                now
            });
            arrived.saturating_sub(at) as f64 / 1000.0
        })
        .collect();
    all.sort_by(f64::total_cmp);
    (all, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_came_counts_as_late_as_it_is() {
        let committed = (0..3).map(|number| Committed {
            number,
            event: Uuid::from_u128(number as u128),
            at: 1000,
        });
        let arrived = [(0, 3500), (1, 2000)].map(|(id, at)| (Uuid::from_u128(id), at));
        let found = latencies(committed, &HashMap::from(arrived), 9000);
        assert_eq!(found, (vec![1.0, 2.5, 8.0], 1));
    }
}
