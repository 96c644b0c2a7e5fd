//! Lanes: one per webhook that has work, so that a slow receiver is in nobody's way but its own.
//!
//! A lane has a few requests in flight and behind them a queue that is as long as the lane is fast: what
//! it can't start soon goes back to PostgreSQL. Lanes that could start something while all slots are
//! taken get the free ones in turn: first their clients, then they among each other. A lane without work
//! is forgotten.
//!
//! A request that takes long gives its slot up to the young ones, and is counted as a laggard. While
//! slots or laggards run short, a lane may have no more in flight than its receiver has shown to answer.
//!
//! No clock and no I/O: time comes in as an argument.

mod lane;
mod turns;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use lane::{Lane, Readiness};
use turns::Turns;

/// What waits in a lane should start within this time.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);
/// A lane may hold so many times its share of all room, since the others seldom use theirs up.
const SHARES: usize = 4;
/// Laggards for each slot.
const LAGGARDS_PER_SLOT: usize = 4;

/// What a webhook wants of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) client: i32,
    /// Requests in flight.
    pub(crate) max_in_flight: usize,
    pub(crate) batch: Option<Batch>,
    /// Whether each request needs a grant.
    pub(crate) limited: bool,
}

/// How many events one request may carry, and how long the first may wait for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) max_events: usize,
    pub(crate) max_wait: Duration,
}

/// What is offered to a lane.
#[derive(Debug)]
pub(crate) struct Offer<W> {
    pub(crate) work: W,
    /// Bytes, about.
    pub(crate) size: usize,
    /// Whether it is sent in a request of its own.
    pub(crate) alone: bool,
}

/// What is to be sent in one request.
#[derive(Debug, PartialEq)]
pub(crate) struct Job<W> {
    pub(crate) webhook: Uuid,
    /// At least one.
    pub(crate) work: Vec<W>,
}

/// A lane has no room for it.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused<W> {
    pub(crate) work: W,
    /// How many the lane expects to get through in [`PATIENCE`].
    pub(crate) pace: usize,
}

/// A lane that needs grants for what waits in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) webhook: Uuid,
    pub(crate) requests: usize,
}

/// How a request went, as far as its lane is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) took: Duration,
    /// Whether the receiver answered, with whatever status.
    pub(crate) answered: bool,
    pub(crate) delivered: bool,
    /// Whether it had been counted as a laggard.
    pub(crate) lagged: bool,
}

pub(crate) struct Lanes<W> {
    lanes: HashMap<Uuid, Lane<W>>,
    /// Lanes that may start something now.
    turns: Turns,
    /// Lanes that may start something at some time, unless they may before.
    timers: BTreeSet<(Instant, Uuid)>,
    /// Lanes that may need grants.
    hungry: HashSet<Uuid>,
    /// How many lanes each client has.
    clients: HashMap<i32, usize>,
    /// Requests under way that hold a slot.
    running: usize,
    laggards: usize,
    slots: usize,
    /// The longest queue of one lane.
    longest: usize,
}

/// Events in hand, besides what waits, for which `slots` have laggards.
pub(crate) fn most_laggards(slots: usize) -> usize {
    slots * LAGGARDS_PER_SLOT
}

impl<W> Lanes<W> {
    pub(crate) fn new(slots: usize, longest: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            turns: Turns::default(),
            timers: BTreeSet::new(),
            hungry: HashSet::new(),
            clients: HashMap::new(),
            running: 0,
            laggards: 0,
            slots,
            longest,
        }
    }

    /// Queues it. What can start is then to be had by [`Lanes::next`].
    pub(crate) fn offer(
        &mut self,
        webhook: Uuid,
        terms: Terms,
        offer: Offer<W>,
        now: Instant,
    ) -> Result<(), Refused<W>> {
        let lane = self.lanes.entry(webhook).or_insert_with(|| {
            *self.clients.entry(terms.client).or_default() += 1;
            Lane::new(terms, now)
        });
        lane.terms = Terms {
            client: lane.terms.client,
            ..terms
        };
        let share = share(self.longest, &self.clients, lane.terms);
        let room = lane.room(now, share.min(self.longest));
        if lane.waiting() >= room || lane.is_failing() {
            let pace = lane.pace(now);
            return Err(Refused {
                work: offer.work,
                pace,
            });
        }
        lane.push(offer, now);
        self.look(webhook, now);
        Ok(())
    }

    /// What is to be started now: it has a slot, until [`Lanes::finish`]. To be asked for after every
    /// change until there is nothing.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Job<W>> {
        while let Some(&(at, webhook)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            self.look(webhook, now);
        }
        while self.running < self.slots {
            let webhook = self.turns.next()?;
            let pressed = self.is_pressed();
            let Some(lane) = self.lanes.get_mut(&webhook) else {
                continue;
            };
            let work = lane.start(pressed, now);
            if work.is_empty() {
                // Something has changed since it got its turn.
                self.look(webhook, now);
                continue;
            }
            self.running += 1;
            self.look(webhook, now);
            return Some(Job { webhook, work });
        }
        None
    }

    /// When [`Lanes::next`] may have something although nothing else has changed.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether so many are under way that a lane has to make do with what its receiver answers.
    fn is_pressed(&self) -> bool {
        self.running >= self.slots.div_ceil(2) || self.laggards >= most_laggards(self.slots) / 2
    }

    /// A request takes long: whether it gives its slot up. It doesn't while there are too many laggards.
    pub(crate) fn lag(&mut self, webhook: Uuid, now: Instant) -> bool {
        if self.laggards >= most_laggards(self.slots) {
            return false;
        }
        self.running -= 1;
        self.laggards += 1;
        self.look(webhook, now);
        true
    }

    /// Notes that a request of that webhook ended. Takes out what waits where so many have failed in a row
    /// that its circuit is about to open: no attempt of theirs is to be used up.
    pub(crate) fn finish(&mut self, webhook: Uuid, ended: Ended, now: Instant) -> Vec<Refused<W>> {
        match ended.lagged {
            true => self.laggards -= 1,
            false => self.running -= 1,
        }
        let mut spared = Vec::new();
        if let Some(lane) = self.lanes.get_mut(&webhook) {
            lane.finished(ended, now);
            let pace = lane.pace(now);
            while lane.is_failing()
                && let Some(work) = lane.pop_latest()
            {
                spared.push(Refused { work, pace });
            }
            self.look(webhook, now);
        }
        spared
    }

    /// Notes whether a lane may start something, now or later, and forgets one that has nothing.
    fn look(&mut self, webhook: Uuid, now: Instant) {
        let pressed = self.is_pressed();
        let Some(lane) = self.lanes.get_mut(&webhook) else {
            return;
        };
        if let Some(timer) = lane.timer.take() {
            self.timers.remove(&(timer, webhook));
        }
        if lane.terms.limited {
            self.hungry.insert(webhook);
        }
        match lane.readiness(pressed, now) {
            Readiness::Now => self.turns.add(lane.terms.client, webhook),
            Readiness::At(at) => {
                lane.timer = Some(at);
                self.timers.insert((at, webhook));
            }
            Readiness::Blocked => {}
            Readiness::Idle => {
                let client = lane.terms.client;
                self.lanes.remove(&webhook);
                if let Some(lanes) = self.clients.get_mut(&client) {
                    *lanes -= 1;
                    if *lanes == 0 {
                        self.clients.remove(&client);
                    }
                }
            }
        }
    }

    /// What lanes need grants for since the last time, to be asked for.
    pub(crate) fn wants(&mut self, now: Instant) -> Vec<Want> {
        let lanes = &mut self.lanes;
        self.hungry
            .drain()
            .filter_map(|webhook| {
                let requests = lanes.get_mut(&webhook)?.want(now);
                (requests > 0).then_some(Want { webhook, requests })
            })
            .collect()
    }

    /// What is next in a lane.
    pub(crate) fn peek(&self, webhook: Uuid) -> Option<&W> {
        self.lanes.get(&webhook)?.peek()
    }

    /// Answers a [`Want`]: when its requests may start. What there is no grant for is taken out, the
    /// latest first.
    pub(crate) fn grant(
        &mut self,
        webhook: Uuid,
        asked: usize,
        starts: &[Instant],
        now: Instant,
    ) -> Vec<W> {
        let Some(lane) = self.lanes.get_mut(&webhook) else {
            return Vec::new();
        };
        let denied = lane.granted(asked, starts);
        self.look(webhook, now);
        denied
    }

    /// Takes out what waits in lanes that have become too slow for their queue, the latest first, and
    /// looks at all lanes: what kept one from starting may have been what others had under way.
    pub(crate) fn shed(&mut self, now: Instant) -> Vec<Refused<W>> {
        let mut shed = Vec::new();
        for lane in self.lanes.values_mut() {
            let room = lane.room(now, share(self.longest, &self.clients, lane.terms));
            let pace = lane.pace(now);
            while lane.waiting() > room
                && let Some(work) = lane.pop_latest()
            {
                shed.push(Refused { work, pace });
            }
        }
        let lanes: Vec<Uuid> = self.lanes.keys().copied().collect();
        for webhook in lanes {
            self.look(webhook, now);
        }
        shed
    }

    /// Takes out everything that has not started.
    pub(crate) fn drain(&mut self, now: Instant) -> Vec<W> {
        let mut drained = Vec::new();
        let webhooks: Vec<Uuid> = self.lanes.keys().copied().collect();
        for webhook in webhooks {
            if let Some(lane) = self.lanes.get_mut(&webhook) {
                while let Some(work) = lane.pop_latest() {
                    drained.push(work);
                }
            }
            self.look(webhook, now);
        }
        drained
    }
}

/// How much of all room a lane may hold: as much as every other of its client's, and its client as much
/// as every other, times [`SHARES`].
fn share(longest: usize, clients: &HashMap<i32, usize>, terms: Terms) -> usize {
    let siblings = clients.get(&terms.client).copied().unwrap_or(1).max(1);
    let share = SHARES * longest / clients.len().max(1) / siblings;
    share.clamp(
        2 * terms.max_in_flight,
        longest.max(2 * terms.max_in_flight),
    )
}
