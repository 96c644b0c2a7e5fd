//! From a claim to what is recorded of it: claimed events enter their lanes, those with a slot are
//! attempted, and each ends as an entry for the recorder.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::claim::{Claimed, Park, Release};
use domain::parking;
use domain::record::Record;
use futures_util::FutureExt;
use queue::RateLimiter;
use runtime::shutdown::Shutdown;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{sleep_until, timeout};
use tracing::Instrument;
use uuid::Uuid;

use crate::deliver::{self, Attempt, Parcel};
use crate::endpoint::Endpoint;
use crate::inline::{Held, Inliner, Mention};
use crate::lanes::{Ended, Job, Lanes, Offer, PATIENCE, Refused, Want};
use crate::meters::{Meters, Reason};
use crate::policy::{self, Case};
use crate::recorder::{Entry, What};

/// What must be left of a claim's time, besides the attempt's own, so that its outcome can be
/// recorded under it.
const MARGIN: Duration = Duration::from_secs(5);
/// What a job that has waited for its files as long as it may still has left before it would be given back.
const SLACK: Duration = Duration::from_secs(1);
/// What a claim may wait for its slot; one of a webhook with batches so long for the batch as well.
const QUEUEING: Duration = Duration::from_secs(10);
/// An event that we can't attempt through a fault of our own is tried again after this.
const AFTER_FAULT: Duration = Duration::from_secs(60);
/// How often lanes that have become slow give back what they hold too much.
const SHEDDING: Duration = Duration::from_millis(100);
/// An attempt that takes longer gives its slot up.
const SLOW: Duration = Duration::from_secs(1);
/// What waits for its turn in a rate waits here for so long at the most, and else in PostgreSQL.
const PACING: Duration = Duration::from_millis(800);

/// How long a claim lasts when one attempt may take `timeout`; PostgreSQL adds what a batch may wait.
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
    pub(crate) endpoint: Arc<Endpoint>,
    /// What is to go into the delivery itself.
    pub(crate) file: Option<Mention>,
}

impl Work {
    fn webhook(&self) -> Uuid {
        self.event.webhook_id
    }

    /// Alone: in a batch one that can't be taken would use up the attempts of the others.
    fn offer(self) -> Offer<Self> {
        let file = usize::try_from(self.inlined_bytes()).unwrap_or(usize::MAX);
        let text = self.event.content.len() + self.event.metadata.len() + 512;
        Offer {
            size: text.saturating_add(file),
            alone: self.event.attempt_count > 0 || self.event.probe,
            work: self,
        }
    }

    /// What the base64 of its file takes.
    pub(crate) fn inlined_bytes(&self) -> u64 {
        let most = self.endpoint.inline_media_bytes;
        let file = self.file.as_ref().filter(|file| file.size <= most);
        file.map_or(0, Mention::base64_bytes)
    }

    /// What is left of its claim.
    fn left(&self, timeout: Duration) -> Duration {
        let batch = self.endpoint.terms.batch.map(|batch| batch.max_wait);
        (claim_time(timeout) + batch.unwrap_or_default()).saturating_sub(self.claimed.elapsed())
    }
}

/// How a request went.
#[derive(Debug, Clone, Copy)]
struct Went {
    answered: bool,
    delivered: bool,
    /// The request alone.
    took: Duration,
}

impl Went {
    /// Nothing was sent, and nothing is to be said of the receiver.
    const NOWHERE: Self = Self {
        answered: true,
        delivered: true,
        took: Duration::ZERO,
    };
}

pub(crate) struct Flow {
    lanes: Mutex<Lanes<Work>>,
    /// Wakes the one who watches over what time alone makes ready.
    ripening: Notify,
    limiter: RateLimiter,
    timeout: Duration,
    inliner: Inliner,
    entries: UnboundedSender<Entry>,
    shutdown: Shutdown,
    pub(crate) meters: Arc<Meters>,
}

impl Flow {
    pub(crate) fn new(
        lanes: Lanes<Work>,
        limiter: RateLimiter,
        timeout: Duration,
        inliner: Inliner,
        entries: UnboundedSender<Entry>,
        shutdown: Shutdown,
        meters: Arc<Meters>,
    ) -> Self {
        Self {
            lanes: Mutex::new(lanes),
            ripening: Notify::new(),
            limiter,
            timeout,
            inliner,
            entries,
            shutdown,
            meters,
        }
    }

    /// Takes over what was claimed: queues it or gives it back, and starts what can start.
    pub(crate) fn accept(self: &Arc<Self>, claimed: Vec<Work>) {
        let mut refused = Vec::new();
        {
            let now = Instant::now();
            let mut lanes = self.lanes();
            for work in claimed {
                let (webhook, terms) = (work.webhook(), work.endpoint.terms);
                if let Err(no_room) = lanes.offer(webhook, terms, work.offer(), now) {
                    refused.push(no_room);
                }
            }
        }
        self.go_on();
        for refused in refused {
            self.park_backlog(refused);
        }
    }

    /// Starts what can start, and asks for the grants that others need.
    fn go_on(self: &Arc<Self>) {
        let (jobs, wants) = {
            let now = Instant::now();
            let mut lanes = self.lanes();
            let jobs: Vec<_> = std::iter::from_fn(|| lanes.next(now)).collect();
            (jobs, lanes.wants(now))
        };
        self.start(jobs);
        self.ask(wants);
        self.ripening.notify_one();
    }

    fn start(self: &Arc<Self>, jobs: Vec<Job<Work>>) {
        for job in jobs {
            self.shutdown.spawn(Arc::clone(self).occupy(job));
        }
    }

    fn ask(self: &Arc<Self>, wants: Vec<Want>) {
        for want in wants {
            self.shutdown.spawn(Arc::clone(self).reserve(want));
        }
    }

    /// One slot: it attempts this job, and then whatever is next, until nothing is.
    async fn occupy(self: Arc<Self>, first: Job<Work>) {
        let mut next = Some(first);
        while let Some(job) = next {
            let webhook = job.webhook;
            self.meters.in_flight.increment(1);
            let (went, lagged) = self.process_at_length(job).await;
            self.meters.in_flight.decrement(1);
            let now = Instant::now();
            let ended = Ended {
                took: went.took,
                answered: went.answered,
                delivered: went.delivered,
                lagged,
            };
            let (spared, job, more, wakes, wants) = {
                let mut lanes = self.lanes();
                let wakes = lanes.wakes_at();
                let spared = lanes.finish(webhook, ended, now);
                let job = lanes.next(now);
                let more: Vec<_> = std::iter::from_fn(|| lanes.next(now)).collect();
                (
                    spared,
                    job,
                    more,
                    lanes.wakes_at() != wakes,
                    lanes.wants(now),
                )
            };
            next = job;
            for spared in spared {
                self.park_backlog(spared);
            }
            self.start(more);
            self.ask(wants);
            if wakes {
                self.ripening.notify_one();
            }
        }
    }

    /// Processes a job, and lets another one start meanwhile if it takes long. How it went, and whether it
    /// took long.
    async fn process_at_length(self: &Arc<Self>, job: Job<Work>) -> (Went, bool) {
        let webhook = job.webhook;
        let mut processing = pin!(self.process(job.work));
        if let Ok(went) = timeout(SLOW, &mut processing).await {
            return (went, false);
        }
        let lagged = self.lanes().lag(webhook, Instant::now());
        if lagged {
            self.go_on();
        }
        (processing.await, lagged)
    }

    /// Attempts what one request carries.
    async fn process(&self, mut job: Vec<Work>) -> Went {
        self.give_late_back(&mut job);
        let soft = self.shutdown.soft();
        let Some(_held) = soft.run_until_cancelled(self.inline(&mut job)).await else {
            self.give_all_back(job, Reason::Stopping, Duration::ZERO);
            return Went::NOWHERE;
        };
        // The files took their time, or this process stood still meanwhile.
        self.give_late_back(&mut job);
        let Some(first) = job.first() else {
            return Went::NOWHERE;
        };
        for work in &job {
            if work.event.attempt_count == 0 && !work.event.probe {
                let waited = work.claimed.elapsed().as_secs_f64();
                self.meters
                    .commit_to_attempt
                    .record(work.event.age_seconds + waited);
            }
        }
        let endpoint = Arc::clone(&first.endpoint);
        let parcel = Parcel::new(&endpoint, job.iter().map(|work| &work.event).collect());
        // A panic is a bug; it must not take the slot and the events' place in the budget with it.
        let span = tracing::debug_span!(
            "attempt",
            webhook = %endpoint.webhook_id,
            id = %parcel.id,
            events = job.len(),
            number = parcel.number,
            status = tracing::field::Empty,
            failed = tracing::field::Empty,
        );
        let attempt = deliver::attempt(&endpoint, &parcel, self.timeout).instrument(span.clone());
        let attempt = AssertUnwindSafe(attempt).catch_unwind().await;
        let batch = parcel.is_batch.then_some(parcel.id);
        let Ok(attempt) = attempt else {
            self.give_all_back(job, Reason::Fault, jittered(AFTER_FAULT));
            return Went::NOWHERE;
        };
        self.meters.attempted(&attempt);
        if !span.is_disabled() {
            span.record("status", attempt.status.map(|status| status.as_u16()));
            span.record("failed", attempt.failure.is_some());
        }
        if let Some(failure) = &attempt.failure {
            let webhook = endpoint.webhook_id;
            tracing::debug!(%webhook, id = %parcel.id, "attempt failed: {}", failure.error);
        }
        let went = Went {
            answered: attempt.status.is_some(),
            delivered: attempt.failure.is_none(),
            took: attempt.took,
        };
        for work in job {
            self.conclude(work, &attempt, batch);
        }
        went
    }

    /// What is left of these claims no longer covers an attempt and its record.
    fn give_late_back(&self, job: &mut Vec<Work>) {
        let late = |work: &mut Work| work.left(self.timeout) < self.timeout + MARGIN;
        let too_late: Vec<Work> = job.extract_if(.., late).collect();
        self.give_all_back(too_late, Reason::Late, Duration::ZERO);
    }

    /// Brings the files of a job, for as long as its claims allow. What they take of memory is held by what
    /// this returns.
    async fn inline(&self, job: &mut [Work]) -> Option<Held> {
        if job.iter().all(|work| work.file.is_none()) {
            return None;
        }
        let left = job.iter().map(|work| work.left(self.timeout)).min()?;
        let within = left.saturating_sub(self.timeout + MARGIN + SLACK);
        // In a box: the many jobs without files are to take no room for it.
        Box::pin(self.inliner.inline(job, within)).await
    }

    fn conclude(&self, work: Work, attempt: &Attempt, batch_id: Option<Uuid>) {
        let case = Case {
            number: work.event.attempt_count.saturating_add(1),
            most: work.endpoint.max_retries,
            probe: work.event.probe,
        };
        let random = rand::random();
        let outcome = policy::judge(attempt, case, random);
        let failure = attempt.failure.as_ref();
        let record = Record {
            attempt_id: Uuid::now_v7(),
            event_id: work.event.id,
            client_id: work.event.client_id,
            webhook_id: work.event.webhook_id,
            token: work.token,
            attempt: case.number,
            batch_id,
            probe: case.probe,
            started_at: attempt.started_at,
            duration_ms: i32::try_from(attempt.took.as_millis()).unwrap_or(i32::MAX),
            http_status: attempt.status.map(|status| status.as_u16().into()),
            error_class: failure.map(|failure| failure.class.as_str()),
            error: failure.map(|failure| failure.error.clone()),
            response: attempt.response.clone(),
            leave_alone: policy::leave_alone(attempt, random).as_secs_f64(),
            outcome,
        };
        self.enter(What::Attempt(record), work.permit);
    }

    /// Asks when the requests of a lane may start, and parks what would wait for too long.
    async fn reserve(self: Arc<Self>, want: Want) {
        let Want { webhook, requests } = want;
        let endpoint = self
            .lanes()
            .peek(webhook)
            .map(|work| Arc::clone(&work.endpoint));
        let waits = match endpoint {
            Some(endpoint) => {
                self.limiter
                    .reserve(&endpoint.rates, requests, PACING)
                    .await
            }
            None => Vec::new(),
        };
        let now = Instant::now();
        let starts: Vec<Instant> = waits.iter().map(|wait| now + *wait).collect();
        let denied = self.lanes().grant(webhook, requests, &starts, now);
        self.go_on();
        for work in denied {
            let park = Park {
                reason: parking::Reason::RateLimit,
                step: i32::try_from(starts.len().max(1)).unwrap_or(i32::MAX),
            };
            self.park(work, park, PACING / 2);
        }
    }

    /// Gives a claim back without an attempt, to be due again after that time.
    pub(crate) fn give_back(&self, work: Work, reason: Reason, delay: Duration) {
        self.meters.released(reason);
        self.release(work, None, delay);
    }

    /// Gives back an event whose webhook can't be delivered to through a fault of our own.
    pub(crate) fn give_back_faulty(
        &self,
        event: &Claimed,
        token: Uuid,
        permit: OwnedSemaphorePermit,
    ) {
        self.meters.released(Reason::Fault);
        let release = Release {
            event_id: event.id,
            webhook_id: event.webhook_id,
            token,
            delay_seconds: jittered(AFTER_FAULT).as_secs_f64(),
            park: None,
        };
        self.enter(What::Release(release), permit);
    }

    fn give_all_back(&self, all: Vec<Work>, reason: Reason, delay: Duration) {
        for work in all {
            self.give_back(work, reason, delay);
        }
    }

    fn park_backlog(&self, refused: Refused<Work>) {
        let park = Park {
            reason: parking::Reason::Backlog,
            step: i32::try_from(refused.pace).unwrap_or(i32::MAX),
        };
        self.park(refused.work, park, PATIENCE);
    }

    /// Gives a claim back, to wait until the webhook's parked events are released.
    fn park(&self, work: Work, park: Park, delay: Duration) {
        let reason = match park.reason {
            parking::Reason::RateLimit => Reason::Limited,
            _ => Reason::Full,
        };
        self.meters.released(reason);
        self.release(work, Some(park), delay);
    }

    fn release(&self, work: Work, park: Option<Park>, delay: Duration) {
        let release = Release {
            event_id: work.event.id,
            webhook_id: work.event.webhook_id,
            token: work.token,
            delay_seconds: delay.as_secs_f64(),
            park,
        };
        self.enter(What::Release(release), work.permit);
    }

    fn enter(&self, what: What, permit: OwnedSemaphorePermit) {
        // The recorder ends after its senders, or at the hard stop, when claims are left to run out.
        let _ = self.entries.send(Entry { what, permit });
    }

    /// Starts what becomes ready by time alone, and keeps lanes that have become slow from holding more
    /// than their share, until the soft stop.
    pub(crate) async fn watch(self: Arc<Self>) {
        let soft = self.shutdown.soft().clone();
        let mut times = tokio::time::interval(SHEDDING);
        times.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let ripe = self.lanes().wakes_at();
            let ripens = async {
                match ripe {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = soft.cancelled() => return,
                () = self.ripening.notified() => {}
                () = ripens => self.go_on(),
                _ = times.tick() => {
                    let shed = self.lanes().shed(Instant::now());
                    for refused in shed {
                        self.park_backlog(refused);
                    }
                    self.go_on();
                }
            }
        }
    }

    /// Gives back all that has not started.
    pub(crate) fn drain(&self) {
        let waiting = self.lanes().drain(Instant::now());
        self.give_all_back(waiting, Reason::Stopping, Duration::ZERO);
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes<Work>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Up to a fifth shorter or longer, so that what was given back together doesn't come back together.
fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(0.8 + 0.4 * rand::random::<f64>())
}
