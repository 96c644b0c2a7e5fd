//! Lanes: one per webhook that has work, so that a slow receiver is in nobody's way but its own.
//!
//! A lane has a few attempts in flight and behind them a queue that is as long as the lane is fast:
//! what it can't start soon goes back to PostgreSQL. Lanes that could start something while all slots
//! are taken get the free ones in turn. A lane without work is forgotten.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Attempts in flight for one webhook.
pub(crate) const IN_FLIGHT_PER_WEBHOOK: usize = 16;

/// What waits in a lane should start within this time.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long an attempt is thought to take before one has ended: a new lane has room for a whole claim.
const FIRST_PACE: Duration = Duration::from_millis(15);
/// What a lane gives back is due again after this at the latest.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// What became of work that was offered.
#[derive(Debug, PartialEq)]
pub(crate) enum Offer<W> {
    /// It has a slot: start it, and call [`Lanes::finish`] when it ends.
    Start(W),
    Queued,
    /// The lane is full, and expects to have room after that time.
    Refused(W, Duration),
}

pub(crate) struct Lanes<W> {
    lanes: HashMap<Uuid, Lane<W>>,
    /// Lanes that have work and may start it, each once, in the order of their turns. Empty while a
    /// slot is free.
    turns: VecDeque<Uuid>,
    running: usize,
    /// Slots, over all lanes.
    slots: usize,
    /// The longest queue of one lane.
    longest: usize,
}

struct Lane<W> {
    in_flight: usize,
    waiting: VecDeque<W>,
    has_turn: bool,
    /// How long its attempts take: an exponential average.
    pace: Duration,
    /// When an attempt ended, or the first one began.
    moved: Instant,
    /// Work that was given back and will come again, as far as the lane knows.
    given_back: u32,
}

impl<W> Lanes<W> {
    pub(crate) fn new(slots: usize, longest: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            running: 0,
            slots,
            longest,
        }
    }

    pub(crate) fn offer(&mut self, webhook: Uuid, work: W, now: Instant) -> Offer<W> {
        let lane = self.lanes.entry(webhook).or_insert_with(|| Lane::new(now));
        if self.running < self.slots && lane.may_start() {
            lane.in_flight += 1;
            self.running += 1;
            return Offer::Start(work);
        }
        if lane.waiting.len() >= lane.room(now, self.longest) {
            let delay = lane.give_back();
            return Offer::Refused(work, delay);
        }
        lane.waiting.push_back(work);
        if lane.may_start() && !lane.has_turn {
            lane.has_turn = true;
            self.turns.push_back(webhook);
        }
        Offer::Queued
    }

    /// Notes that an attempt of that webhook ended after `took`. Its slot goes to the work that is
    /// returned, which may be another webhook's; without any it is free.
    pub(crate) fn finish(&mut self, webhook: Uuid, took: Duration, now: Instant) -> Option<W> {
        self.running -= 1;
        if let Some(lane) = self.lanes.get_mut(&webhook) {
            lane.finished(took, now);
            if lane.is_empty() {
                self.lanes.remove(&webhook);
            } else if lane.may_start() && !lane.waiting.is_empty() && !lane.has_turn {
                lane.has_turn = true;
                self.turns.push_back(webhook);
            }
        }
        self.next_turn()
    }

    fn next_turn(&mut self) -> Option<W> {
        while let Some(webhook) = self.turns.pop_front() {
            let Some(lane) = self.lanes.get_mut(&webhook) else {
                continue;
            };
            lane.has_turn = false;
            let Some(work) = lane.waiting.pop_front() else {
                continue;
            };
            lane.in_flight += 1;
            self.running += 1;
            if lane.may_start() && !lane.waiting.is_empty() {
                lane.has_turn = true;
                self.turns.push_back(webhook);
            }
            return Some(work);
        }
        None
    }

    /// Takes out what waits in lanes that have become too slow for their queue, the latest first.
    pub(crate) fn shed(&mut self, now: Instant) -> Vec<(W, Duration)> {
        let mut shed = Vec::new();
        for lane in self.lanes.values_mut() {
            let room = lane.room(now, self.longest);
            while lane.waiting.len() > room
                && let Some(work) = lane.waiting.pop_back()
            {
                shed.push((work, lane.give_back()));
            }
        }
        shed
    }

    /// Takes out everything that has not started.
    pub(crate) fn drain(&mut self) -> Vec<W> {
        self.turns.clear();
        let mut drained = Vec::new();
        self.lanes.retain(|_, lane| {
            lane.has_turn = false;
            drained.extend(lane.waiting.drain(..));
            lane.in_flight > 0
        });
        drained
    }
}

impl<W> Lane<W> {
    fn new(now: Instant) -> Self {
        Self {
            in_flight: 0,
            waiting: VecDeque::new(),
            has_turn: false,
            pace: FIRST_PACE,
            moved: now,
            given_back: 0,
        }
    }

    fn may_start(&self) -> bool {
        self.in_flight < IN_FLIGHT_PER_WEBHOOK
    }

    fn is_empty(&self) -> bool {
        self.in_flight == 0 && self.waiting.is_empty()
    }

    fn finished(&mut self, took: Duration, now: Instant) {
        self.in_flight -= 1;
        self.pace = (self.pace * 7 + took) / 8;
        self.moved = now;
        self.given_back = self.given_back.saturating_sub(1);
    }

    /// How many may wait: as many as can start in time, and at least as many as may be in flight.
    fn room(&self, now: Instant, longest: usize) -> usize {
        let mut pace = self.pace;
        if !self.may_start() {
            // Nothing has come back for so long: it takes at least that.
            pace = pace.max(now.saturating_duration_since(self.moved));
        }
        let rounds = PATIENCE.as_secs_f64() / pace.as_secs_f64().max(1e-6);
        let room = (rounds * IN_FLIGHT_PER_WEBHOOK as f64) as usize;
        room.clamp(IN_FLIGHT_PER_WEBHOOK.min(longest), longest)
    }

    /// When there should be room for one more that was given back: behind all those before it.
    fn give_back(&mut self) -> Duration {
        self.given_back = self.given_back.saturating_add(1);
        let rounds = self.given_back / IN_FLIGHT_PER_WEBHOOK as u32;
        let delay = PATIENCE.saturating_add(self.pace.saturating_mul(rounds));
        delay.min(LONGEST_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOOK: Duration = Duration::from_millis(1);

    fn hook(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn fill(lanes: &mut Lanes<u32>, webhook: Uuid, count: u32, now: Instant) -> (u32, u32, u32) {
        let mut answers = (0, 0, 0);
        for work in 0..count {
            match lanes.offer(webhook, work, now) {
                Offer::Start(_) => answers.0 += 1,
                Offer::Queued => answers.1 += 1,
                Offer::Refused(..) => answers.2 += 1,
            }
        }
        answers
    }

    #[test]
    fn one_webhook_has_sixteen_in_flight_and_the_others_are_not_kept_waiting() {
        let now = Instant::now();
        let mut lanes = Lanes::new(64, 1000);
        assert_eq!(fill(&mut lanes, hook(1), 40, now), (16, 24, 0));
        assert_eq!(fill(&mut lanes, hook(2), 1, now), (1, 0, 0));
        assert_eq!(lanes.running, 17);
    }

    #[test]
    fn a_slot_goes_to_the_next_in_its_lane() {
        let now = Instant::now();
        let mut lanes = Lanes::new(64, 1000);
        fill(&mut lanes, hook(1), 18, now);
        assert_eq!(lanes.finish(hook(1), TOOK, now), Some(16));
        assert_eq!(lanes.finish(hook(1), TOOK, now), Some(17));
        assert_eq!(lanes.finish(hook(1), TOOK, now), None);
        assert_eq!(lanes.running, 15);
    }

    #[test]
    fn lanes_take_turns_when_all_slots_are_taken() {
        let now = Instant::now();
        let mut lanes = Lanes::new(2, 1000);
        assert_eq!(fill(&mut lanes, hook(1), 4, now), (2, 2, 0));
        for webhook in [2, 3] {
            assert_eq!(fill(&mut lanes, hook(webhook), 1, now), (0, 1, 0));
        }
        let work: Vec<_> = [1, 1, 1, 2]
            .into_iter()
            .map_while(|webhook| lanes.finish(hook(webhook), TOOK, now))
            .collect();
        assert_eq!(work, [2, 0, 0, 3]);
    }

    #[test]
    fn a_lane_that_hangs_keeps_only_a_short_queue() {
        let start = Instant::now();
        let mut lanes = Lanes::new(64, 1000);
        let (started, queued, refused) = fill(&mut lanes, hook(1), 1000, start);
        assert_eq!((started, queued), (16, 533));
        assert_eq!(started + queued + refused, 1000);
        let later = start + Duration::from_secs(1);
        let shed = lanes.shed(later);
        assert_eq!(shed.len(), 533 - 16);
        assert_eq!(fill(&mut lanes, hook(1), 5, later), (0, 0, 5));
    }

    #[test]
    fn a_fast_lane_may_fill_all_room_there_is() {
        let now = Instant::now();
        let mut lanes = Lanes::new(64, 2000);
        fill(&mut lanes, hook(1), 416, now);
        for _ in 0..32 {
            lanes.finish(hook(1), TOOK, now);
        }
        let (_, queued, refused) = fill(&mut lanes, hook(1), 1500, now);
        assert_eq!((queued, refused), (1500, 0));
    }

    #[test]
    fn what_is_given_back_comes_again_at_the_pace_of_its_lane() {
        let now = Instant::now();
        let mut lanes = Lanes::new(64, 16);
        fill(&mut lanes, hook(1), 32, now);
        let delays: Vec<Duration> = (0..100_000)
            .map(|work| match lanes.offer(hook(1), work, now) {
                Offer::Refused(_, delay) => delay,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(delays[0], PATIENCE);
        assert_eq!(delays[159], PATIENCE + FIRST_PACE * 10);
        assert_eq!(delays[99_999], LONGEST_DELAY);
    }

    #[test]
    fn draining_takes_what_waits_and_leaves_what_runs() {
        let now = Instant::now();
        let mut lanes = Lanes::new(64, 1000);
        fill(&mut lanes, hook(1), 20, now);
        assert_eq!(lanes.drain(), [16, 17, 18, 19]);
        assert_eq!(lanes.running, 16);
        assert_eq!(lanes.finish(hook(1), TOOK, now), None);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_limit_is_passed(
            slots in 1_usize..40,
            longest in 1_usize..60,
            steps in prop::collection::vec((0_u128..4, 0_u8..4), 1..400),
        ) {
            let now = Instant::now();
            let mut lanes = Lanes::new(slots, longest);
            let (mut running, mut offered, mut ended) = (Vec::new(), 0_usize, 0_usize);
            for (webhook, step) in steps {
                if step > 0 {
                    offered += 1;
                    match lanes.offer(hook(webhook), webhook, now) {
                        Offer::Start(webhook) => running.push(webhook),
                        Offer::Queued => {}
                        Offer::Refused(..) => ended += 1,
                    }
                } else if let Some(webhook) = running.pop() {
                    ended += 1;
                    running.extend(lanes.finish(hook(webhook), TOOK, now));
                }
                prop_assert_eq!(running.len(), lanes.running);
                prop_assert!(running.len() <= slots);
                for webhook in 0..4 {
                    let in_flight = running.iter().filter(|one| **one == webhook).count();
                    prop_assert!(in_flight <= IN_FLIGHT_PER_WEBHOOK);
                }
                let free = lanes.running < slots;
                prop_assert!(!free || lanes.turns.is_empty());
            }
            while let Some(webhook) = running.pop() {
                ended += 1;
                running.extend(lanes.finish(hook(webhook), TOOK, now));
            }
            prop_assert_eq!(ended, offered);
            prop_assert!(lanes.lanes.is_empty());
        }
    }
}
