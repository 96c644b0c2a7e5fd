use std::collections::{HashMap, VecDeque};

use super::{Due, Flaw, Limits, State, Status, Step};

/// What must never be, of a state or of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Violation {
    TwoOutcomesUnderOneToken,
    StaleTokenChangedSomething,
    WentBackwards,
    ReceivedTooOften,
    OutOfTurn,
    Stuck,
}

/// Everything that can be reached from a state's beginning.
struct Explored {
    states: usize,
    violation: Option<(Violation, Vec<Step>)>,
}

fn explore(limits: Limits, flaw: Flaw) -> Explored {
    let start = State::new(limits);
    let mut places: HashMap<State, usize> = HashMap::from([(start, 0)]);
    // Every state, and the step by which it was reached first.
    let mut states: Vec<(State, Option<(usize, Step)>)> = vec![(start, None)];
    let mut before: Vec<Vec<usize>> = vec![Vec::new()];
    let mut at = 0;
    while at < states.len() {
        assert!(
            at < 300_000,
            "more than was thought of {flaw:?}, {limits:?}"
        );
        let state = states[at].0;
        for step in state.steps() {
            let Some(next) = state.after(step, flaw) else {
                continue;
            };
            if let Some(violation) = judge(&state, step, &next) {
                let mut path = path_to(&states, at);
                path.push(step);
                return Explored {
                    states: states.len(),
                    violation: Some((violation, path)),
                };
            }
            let place = *places.entry(next).or_insert_with(|| {
                states.push((next, Some((at, step))));
                before.push(Vec::new());
                states.len() - 1
            });
            before[place].push(at);
        }
        at += 1;
    }
    let stuck = stuck(&states, &before);
    Explored {
        states: states.len(),
        violation: stuck.map(|at| (Violation::Stuck, path_to(&states, at))),
    }
}

fn path_to(states: &[(State, Option<(usize, Step)>)], mut at: usize) -> Vec<Step> {
    let mut path = Vec::new();
    while let Some((earlier, step)) = states[at].1 {
        path.push(step);
        at = earlier;
    }
    path.reverse();
    path
}

/// A state from which no way leads to where every event is delivered or failed.
fn stuck(states: &[(State, Option<(usize, Step)>)], before: &[Vec<usize>]) -> Option<usize> {
    let over = |state: &State| state.events.iter().all(|e| e.status != Status::Pending);
    let mut fine: Vec<bool> = states.iter().map(|(state, _)| over(state)).collect();
    let mut queue: VecDeque<usize> = (0..states.len()).filter(|at| fine[*at]).collect();
    while let Some(at) = queue.pop_front() {
        for earlier in &before[at] {
            if !std::mem::replace(&mut fine[*earlier], true) {
                queue.push_back(*earlier);
            }
        }
    }
    fine.iter().position(|fine| !fine)
}

fn judge(state: &State, step: Step, next: &State) -> Option<Violation> {
    match step {
        Step::Record(who) | Step::RecordUnheard(who) | Step::GiveBack(who) | Step::Park(who) => {
            let claim = state.dispatchers[who].work.claim()?;
            let (was, is) = (state.events[claim.event], next.events[claim.event]);
            if was.token != Some(claim.token) && was != is {
                return Some(Violation::StaleTokenChangedSomething);
            }
            let writes = matches!(step, Step::Record(_) | Step::RecordUnheard(_));
            if writes && state.written & (1 << claim.token) != 0 && was != is {
                return Some(Violation::TwoOutcomesUnderOneToken);
            }
        }
        Step::Ring(_, event) | Step::Poll(_, event) | Step::Probe(_, event)
            if !state.in_turn(event) =>
        {
            return Some(Violation::OutOfTurn);
        }
        _ => {}
    }
    for (was, is) in state.events.iter().zip(&next.events) {
        let requeued = matches!(step, Step::Requeue(_));
        if was.status != Status::Pending && is.status != was.status && !requeued {
            return Some(Violation::WentBackwards);
        }
        if is.owed < 0 {
            return Some(Violation::ReceivedTooOften);
        }
    }
    let stranded = next.parked() && next.look == Due::Never;
    stranded.then_some(Violation::Stuck)
}

const ONE_EVENT: Limits = Limits {
    events: 1,
    crashes: 1,
    pauses: 1,
    requeues: 1,
    outages: 1,
};

const A_CHAT: Limits = Limits {
    events: 2,
    crashes: 1,
    pauses: 0,
    requeues: 0,
    outages: 1,
};

/// Two in flight in one chat, which takes a requeue.
const A_CHAT_AGAIN: Limits = Limits {
    events: 2,
    crashes: 0,
    pauses: 0,
    requeues: 1,
    outages: 1,
};

#[test]
fn in_no_state_that_can_be_reached_is_an_event_lost_doubled_or_stuck() {
    for (limits, at_least) in [(ONE_EVENT, 20_000), (A_CHAT, 5_000), (A_CHAT_AGAIN, 5_000)] {
        let explored = explore(limits, Flaw::None);
        assert_eq!(explored.violation, None, "{limits:?}");
        assert!(
            explored.states > at_least,
            "{} of {limits:?}",
            explored.states
        );
    }
}

/// The model can fail: whatever rule is left out, the search finds what it was there for.
#[test]
fn every_rule_of_the_protocol_is_needed() {
    for (flaw, limits, expected) in [
        (
            Flaw::NoTokenCheck,
            ONE_EVENT,
            Violation::StaleTokenChangedSomething,
        ),
        (
            Flaw::NoTokenCheckOnRelease,
            ONE_EVENT,
            Violation::StaleTokenChangedSomething,
        ),
        (Flaw::ShortDeadline, ONE_EVENT, Violation::ReceivedTooOften),
        (Flaw::NoDeadline, ONE_EVENT, Violation::Stuck),
        (Flaw::RingTakesAll, ONE_EVENT, Violation::ReceivedTooOften),
        (
            Flaw::NothingSpent,
            ONE_EVENT,
            Violation::TwoOutcomesUnderOneToken,
        ),
        (Flaw::NoLook, ONE_EVENT, Violation::Stuck),
        (Flaw::ProbeForgets, ONE_EVENT, Violation::Stuck),
        (Flaw::NoCall, A_CHAT, Violation::Stuck),
    ] {
        let found = explore(limits, flaw).violation;
        let (violation, path) = found.unwrap_or_else(|| panic!("nothing found of {flaw:?}"));
        assert_eq!(violation, expected, "{flaw:?} by {path:?}");
    }
}
