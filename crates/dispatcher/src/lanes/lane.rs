use std::collections::VecDeque;
use std::time::{Duration, Instant};

use domain::health::FAILURES_UNTIL_FAILED;

use super::{Batch, Ended, Offer, PATIENCE, Terms};

/// How long a request is thought to take before one has ended: a new lane has room for a whole claim.
const FIRST_PACE: Duration = Duration::from_millis(15);
/// What a lane may have in flight, while slots run short, before its receiver has answered.
const FIRST_WINDOW: usize = 2;
/// So many bytes go into one batch, but for the event that passes it.
const BATCH_BYTES: usize = 1024 * 1024;
/// A grant that could not be used for so long is lost: a receiver that comes to must not get all at once.
const GRANT_LASTS: Duration = Duration::from_millis(200);

/// When a lane may start something.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Now,
    At(Instant),
    /// Not before something else happens.
    Blocked,
    /// It has nothing, neither waiting nor in flight.
    Idle,
}

struct Waiting<W> {
    offer: Offer<W>,
    since: Instant,
}

pub(super) struct Lane<W> {
    pub(super) terms: Terms,
    /// Where the lane stands among the timers.
    pub(super) timer: Option<Instant>,
    in_flight: usize,
    waiting: VecDeque<Waiting<W>>,
    /// What may be in flight while slots run short: grows with answers, shrinks without.
    window: usize,
    /// Requests that failed in a row.
    failures: i32,
    /// How long its requests take: an exponential average.
    pace: Duration,
    /// When a request ended, or the first one began.
    moved: Instant,
    /// When requests may start, where they need grants.
    grants: VecDeque<Instant>,
    /// Grants that were asked for.
    asked: usize,
}

impl<W> Lane<W> {
    pub(super) fn new(terms: Terms, now: Instant) -> Self {
        Self {
            terms,
            timer: None,
            in_flight: 0,
            waiting: VecDeque::new(),
            window: FIRST_WINDOW,
            failures: 0,
            pace: FIRST_PACE,
            moved: now,
            grants: VecDeque::new(),
            asked: 0,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, offer: Offer<W>, now: Instant) {
        self.waiting.push_back(Waiting { offer, since: now });
    }

    pub(super) fn peek(&self) -> Option<&W> {
        self.waiting.front().map(|waiting| &waiting.offer.work)
    }

    pub(super) fn pop_latest(&mut self) -> Option<W> {
        self.waiting.pop_back().map(|waiting| waiting.offer.work)
    }

    pub(super) fn readiness(&self, pressed: bool, now: Instant) -> Readiness {
        let Some(first) = self.waiting.front() else {
            return match self.in_flight {
                0 => Readiness::Idle,
                _ => Readiness::Blocked,
            };
        };
        let most = match pressed {
            true => self.window.min(self.terms.max_in_flight),
            false => self.terms.max_in_flight,
        };
        if self.in_flight >= most {
            return Readiness::Blocked;
        }
        let gathered = match self.terms.batch {
            Some(batch) if !first.offer.alone && self.batch(batch) < batch.max_events => {
                first.since + batch.max_wait
            }
            _ => now,
        };
        let granted = match self.terms.limited {
            false => now,
            true => match self.grants.front() {
                Some(start) => *start,
                None => return Readiness::Blocked,
            },
        };
        match gathered.max(granted) {
            at if at <= now => Readiness::Now,
            at => Readiness::At(at),
        }
    }

    /// How many of those at the front would go into one request; as many as may when they are large.
    fn batch(&self, batch: Batch) -> usize {
        let mut bytes = 0;
        for (count, waiting) in self.waiting.iter().enumerate() {
            if count == batch.max_events || waiting.offer.alone {
                return count;
            }
            bytes += waiting.offer.size;
            if bytes >= BATCH_BYTES {
                return batch.max_events;
            }
        }
        self.waiting.len()
    }

    /// What one request is to carry; nothing when none may start.
    pub(super) fn start(&mut self, pressed: bool, now: Instant) -> Vec<W> {
        if self.terms.limited {
            while let Some(start) = self.grants.front()
                && *start + GRANT_LASTS < now
            {
                self.grants.pop_front();
            }
        }
        if self.readiness(pressed, now) != Readiness::Now {
            return Vec::new();
        }
        self.grants.pop_front();
        if self.in_flight == 0 {
            self.moved = now;
        }
        self.in_flight += 1;
        let Some(first) = self.waiting.pop_front() else {
            return Vec::new();
        };
        let (mut bytes, alone) = (first.offer.size, first.offer.alone);
        let mut work = vec![first.offer.work];
        if let Some(batch) = self.terms.batch
            && !alone
        {
            while work.len() < batch.max_events
                && bytes < BATCH_BYTES
                && let Some(next) = self.waiting.pop_front_if(|next| !next.offer.alone)
            {
                bytes += next.offer.size;
                work.push(next.offer.work);
            }
        }
        work
    }

    pub(super) fn finished(&mut self, ended: Ended, now: Instant) {
        self.in_flight -= 1;
        self.pace = (self.pace * 7 + ended.took) / 8;
        self.moved = now;
        self.failures = match ended.delivered {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        self.window = match ended.answered {
            true => self.window.saturating_add(1).min(self.terms.max_in_flight),
            false => (self.window / 2).max(1),
        };
    }

    /// Whether its circuit is open, or about to be.
    pub(super) fn is_failing(&self) -> bool {
        self.failures >= FAILURES_UNTIL_FAILED
    }

    /// How many events should get through in [`PATIENCE`].
    pub(super) fn pace(&self, now: Instant) -> usize {
        let mut pace = self.pace;
        if self.in_flight > 0 {
            // Nothing has come back for so long: it takes at least that.
            pace = pace.max(now.saturating_duration_since(self.moved));
        }
        let rounds = PATIENCE.as_secs_f64() / pace.as_secs_f64().max(1e-6);
        // One whose receiver doesn't answer gets no more through than it may try while slots run short.
        let requests = match self.window < FIRST_WINDOW {
            true => self.window,
            false => self.terms.max_in_flight,
        };
        let at_once = requests * self.terms.batch.map_or(1, |b| b.max_events);
        ((rounds * at_once as f64) as usize).max(1)
    }

    /// How many may wait: as many as can start in time, within the lane's share.
    pub(super) fn room(&self, now: Instant, share: usize) -> usize {
        let share = share.max(self.terms.batch.map_or(0, |batch| batch.max_events));
        self.pace(now).min(share)
    }

    /// Notes that grants are asked for, one for each request that what waits will need.
    pub(super) fn want(&mut self, now: Instant) -> usize {
        if !self.terms.limited {
            return 0;
        }
        self.grants.retain(|start| *start + GRANT_LASTS >= now);
        let per_request = self.terms.batch.map_or(1, |batch| batch.max_events);
        let requests = self.waiting.len().div_ceil(per_request);
        let want = requests.saturating_sub(self.grants.len() + self.asked);
        self.asked += want;
        want
    }

    /// Notes grants; returns what there will be none for.
    pub(super) fn granted(&mut self, asked: usize, starts: &[Instant]) -> Vec<W> {
        // The lane that asked may have been forgotten meanwhile.
        self.asked = self.asked.saturating_sub(asked);
        self.grants.extend(starts);
        if starts.len() >= asked {
            return Vec::new();
        }
        let per_request = self.terms.batch.map_or(1, |batch| batch.max_events);
        let room = (self.grants.len() + self.asked) * per_request;
        let mut denied = Vec::new();
        while self.waiting.len() > room
            && let Some(work) = self.pop_latest()
        {
            denied.push(work);
        }
        denied
    }
}
