//! From a claim to what is recorded of it: claimed events enter their lanes, those with a slot are
//! attempted, and each ends as an entry for the recorder.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::claim::{Claimed, Release};
use domain::record::Record;
use futures_util::FutureExt;
use runtime::shutdown::Shutdown;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use crate::deliver::{Attempt, Sender};
use crate::lanes::{Lanes, Offer};
use crate::meters::{Meters, Reason};
use crate::policy;
use crate::recorder::{Entry, What};

/// What must be left of a claim's time, besides the attempt's own, so that its outcome can be
/// recorded under it.
const MARGIN: Duration = Duration::from_secs(5);
/// What a claim may wait for its slot.
const QUEUEING: Duration = Duration::from_secs(10);
/// An event that we can't attempt through a fault of our own is tried again after this.
const AFTER_FAULT: Duration = Duration::from_secs(60);
/// How often lanes that have become slow give back what they hold too much.
const SHEDDING: Duration = Duration::from_millis(100);

/// How long a claim lasts when one attempt may take `timeout`.
pub(crate) fn claim_time(timeout: Duration) -> Duration {
    timeout + QUEUEING + MARGIN
}

/// A claimed event in this process's hands.
pub(crate) struct Work {
    pub(crate) event: Claimed,
    pub(crate) token: Uuid,
    /// When the claim was asked for; PostgreSQL gave it later, so that it ends later than we think.
    pub(crate) claimed: Instant,
    /// Its part of the budget, given back when it is recorded.
    pub(crate) permit: OwnedSemaphorePermit,
}

pub(crate) struct Flow {
    lanes: Mutex<Lanes<Work>>,
    sender: Sender,
    timeout: Duration,
    entries: UnboundedSender<Entry>,
    shutdown: Shutdown,
    pub(crate) meters: Arc<Meters>,
}

impl Flow {
    pub(crate) fn new(
        lanes: Lanes<Work>,
        sender: Sender,
        timeout: Duration,
        entries: UnboundedSender<Entry>,
        shutdown: Shutdown,
        meters: Arc<Meters>,
    ) -> Self {
        Self {
            lanes: Mutex::new(lanes),
            sender,
            timeout,
            entries,
            shutdown,
            meters,
        }
    }

    /// Takes over what was claimed: starts it, queues it, or gives it back.
    pub(crate) fn accept(self: &Arc<Self>, claimed: Vec<Work>) {
        let mut start = Vec::new();
        let mut refused = Vec::new();
        {
            let now = Instant::now();
            let mut lanes = self.lanes();
            for work in claimed {
                match lanes.offer(work.event.webhook_id, work, now) {
                    Offer::Start(work) => start.push(work),
                    Offer::Queued => {}
                    Offer::Refused(work, delay) => refused.push((work, delay)),
                }
            }
        }
        for work in start {
            self.shutdown.spawn(Arc::clone(self).occupy(work));
        }
        for (work, delay) in refused {
            self.give_back(work, Reason::Full, jittered(delay));
        }
    }

    /// One slot: it attempts this event, and then whatever is next, until nothing is.
    async fn occupy(self: Arc<Self>, first: Work) {
        let mut next = Some(first);
        while let Some(work) = next {
            let webhook = work.event.webhook_id;
            let start = Instant::now();
            self.meters.in_flight.increment(1);
            self.process(work).await;
            self.meters.in_flight.decrement(1);
            let end = Instant::now();
            next = self.lanes().finish(webhook, end - start, end);
        }
    }

    async fn process(&self, work: Work) {
        if self.shutdown.soft().is_cancelled() {
            return self.give_back(work, Reason::Stopping, Duration::ZERO);
        }
        let left = claim_time(self.timeout).saturating_sub(work.claimed.elapsed());
        if left < self.timeout + MARGIN {
            return self.give_back(work, Reason::Late, Duration::ZERO);
        }
        if work.event.attempt_count == 0 {
            let waited = work.claimed.elapsed().as_secs_f64();
            self.meters
                .commit_to_attempt
                .record(work.event.age_seconds + waited);
        }
        // A panic is a bug; it must not take the slot and the event's place in the budget with it.
        let attempt = AssertUnwindSafe(self.sender.attempt(&work.event)).catch_unwind();
        match attempt.await {
            Ok(Ok(attempt)) => self.conclude(work, attempt),
            Ok(Err(error)) => {
                let (event, webhook) = (work.event.id, work.event.webhook_id);
                tracing::error!(%event, %webhook, "not attempted: {error}");
                self.give_back(work, Reason::Fault, jittered(AFTER_FAULT));
            }
            Err(_) => self.give_back(work, Reason::Fault, jittered(AFTER_FAULT)),
        }
    }

    fn conclude(&self, work: Work, attempt: Attempt) {
        self.meters.attempted(&attempt);
        let outcome = policy::judge(&attempt, work.event.max_retries, rand::random());
        if let Some(failure) = &attempt.failure {
            let (event, webhook) = (work.event.id, work.event.webhook_id);
            tracing::debug!(%event, %webhook, ?outcome, "attempt failed: {}", failure.error);
        }
        let (error_class, error) = attempt
            .failure
            .map(|failure| (failure.class.as_str(), failure.error))
            .unzip();
        let record = Record {
            attempt_id: Uuid::now_v7(),
            event_id: work.event.id,
            client_id: work.event.client_id,
            webhook_id: work.event.webhook_id,
            token: work.token,
            attempt: attempt.number,
            started_at: attempt.started_at,
            duration_ms: i32::try_from(attempt.took.as_millis()).unwrap_or(i32::MAX),
            http_status: attempt.status.map(|status| status.as_u16().into()),
            error_class,
            error,
            response: attempt.response,
            outcome,
        };
        self.enter(What::Attempt(record), work.permit);
    }

    /// Gives a claim back without an attempt.
    pub(crate) fn give_back(&self, work: Work, reason: Reason, delay: Duration) {
        self.meters.released(reason);
        let release = Release {
            event_id: work.event.id,
            token: work.token,
            delay_seconds: delay.as_secs_f64(),
        };
        self.enter(What::Release(release), work.permit);
    }

    fn enter(&self, what: What, permit: OwnedSemaphorePermit) {
        // The recorder ends after its senders, or at the hard stop, when claims are left to run out.
        let _ = self.entries.send(Entry { what, permit });
    }

    /// Keeps lanes that have become slow from holding more than their share, until the soft stop.
    pub(crate) async fn shed(self: Arc<Self>) {
        let mut times = tokio::time::interval(SHEDDING);
        while self
            .shutdown
            .soft()
            .run_until_cancelled(times.tick())
            .await
            .is_some()
        {
            let shed = self.lanes().shed(Instant::now());
            for (work, delay) in shed {
                self.give_back(work, Reason::Full, jittered(delay));
            }
        }
    }

    /// Gives back all that has not started.
    pub(crate) fn drain(&self) {
        let waiting = self.lanes().drain();
        for work in waiting {
            self.give_back(work, Reason::Stopping, Duration::ZERO);
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes<Work>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Up to a fifth shorter or longer, so that what was given back together doesn't come back together.
fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(0.8 + 0.4 * rand::random::<f64>())
}
