//! What must be true when the storm is over.
//!
//! An attempt is named by its event and the moment at which it began: the receiver has that from
//! `X-Webhook-Timestamp`, the ledger from `started_at`. So each request is one of three:
//!
//! - on record, and its outcome counted;
//! - on record as superseded: its claim was lost before. That is right where a dispatcher stood still
//!   until its claims had run out;
//! - not on record: its outcome was lost. That is right where a dispatcher was killed, with the attempt
//!   under way, or with outcomes in hand that PostgreSQL, being away, did not take.
//!
//! Only for the last two may an event be sent again, apart from retries, whose reason is on record. So
//! each of these is held against the faults that there were, and the duplicates against them.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::faults::{Kind, Strike};
use super::load::Committed;
use super::receivers::{Manner, Request};
use crate::cases::invariants::{Complaints, Figures, Verdict};
use crate::system::records::{Attempt, Event, StepBack};

/// What recording an outcome takes, at most, and what a dispatcher that goes on again takes to send what
/// it was about to send.
const SLACK: Duration = Duration::from_secs(3);
/// After so long PostgreSQL has what could not be recorded while it was away.
const CATCHING_UP: Duration = Duration::from_secs(6);

/// How a webhook's receiver is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) manner: Manner,
    pub(super) ordered: bool,
}

/// What all saw.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) webhook_timeout: Duration,
    /// By the number of the webhook.
    pub(super) kept: Vec<Kept>,
    /// In the order of commit.
    pub(super) committed: Vec<Committed>,
    /// In the order of arrival.
    pub(super) requests: Vec<Request>,
    pub(super) events: Vec<Event>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) steps_back: Vec<StepBack>,
    pub(super) strikes: Vec<Strike>,
}

/// Judges it all. Only what went to receivers that behave well counts as sent.
pub(super) fn judge(seen: &Seen) -> Verdict {
    let mut complaints = Complaints::default();
    let mut figures = Figures::default();
    let fates = fates(seen);
    let nothing = Fate::default();
    for committed in &seen.committed {
        let id = committed.event;
        let fate = fates.get(&id).unwrap_or(&nothing);
        fate.check(id, seen, &mut complaints);
        figures.unrecorded += fate.unrecorded.len();
        figures.superseded += fate.superseded.len();
        if seen.kept[committed.line].manner == Manner::Well {
            figures.sent += 1;
            figures.committed += usize::from(fate.status.is_some());
            figures.duplicates += fate.requests.saturating_sub(1);
            let delivered = fate.check_delivered(id, &mut complaints);
            figures.delivered += usize::from(delivered);
            figures.lost += usize::from(!delivered);
        }
    }
    check_order(seen, &fates, &mut complaints);
    if fates.len() > seen.committed.len() {
        let more = fates.len() - seen.committed.len();
        complaints.add(format!("{more} events that nobody committed"), "");
    }
    for step in &seen.steps_back {
        let what = format!("changed from {:?} to {:?}", step.before, step.after);
        complaints.add(what, &step.event_id.to_string());
    }
    Verdict {
        violations: complaints.into_lines(),
        figures,
    }
}

/// Milliseconds from the commit to the first arrival, sorted, for what was committed in that time for
/// receivers that behave well. Chats in order are left out: they wait for one another on purpose.
pub(super) fn delays(seen: &Seen, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<f64> {
    let mut first = HashMap::new();
    for request in &seen.requests {
        first.entry(request.event).or_insert(request.arrived);
    }
    let counts = |committed: &&Committed| {
        let kept = seen.kept[committed.line];
        kept.manner == Manner::Well && !kept.ordered && (from..to).contains(&committed.at)
    };
    let committed = seen.committed.iter().filter(counts);
    let mut delays: Vec<f64> = committed
        .filter_map(|committed| {
            Some((*first.get(&committed.event)? - committed.at).as_seconds_f64())
        })
        .map(|seconds| seconds * 1000.0)
        .collect();
    delays.sort_by(f64::total_cmp);
    delays
}

/// What became of an event.
#[derive(Debug, Default)]
struct Fate {
    status: Option<String>,
    sequence: i64,
    requests: usize,
    /// The place of the first request among all.
    first: Option<usize>,
    /// When these attempts began, in milliseconds since 1970.
    unrecorded: Vec<i64>,
    superseded: Vec<i64>,
    successes: usize,
    failures: usize,
    /// Attempts on record with an answer that no receiver gave.
    invented: usize,
}

fn fates(seen: &Seen) -> HashMap<Uuid, Fate> {
    let mut fates: HashMap<Uuid, Fate> = HashMap::new();
    for event in &seen.events {
        let fate = fates.entry(event.id).or_default();
        fate.status = Some(event.status.clone());
        fate.sequence = event.sequence;
    }
    let mut recorded: HashMap<(Uuid, i64), &Attempt> = HashMap::new();
    for attempt in &seen.attempts {
        let name = (attempt.event_id, attempt.started_at.timestamp_millis());
        recorded.insert(name, attempt);
        let fate = fates.entry(attempt.event_id).or_default();
        match attempt.http_status {
            _ if attempt.superseded => fate.superseded.push(name.1),
            Some(_) if attempt.error_class.is_none() => fate.successes += 1,
            _ => fate.failures += 1,
        }
    }
    for (place, request) in seen.requests.iter().enumerate() {
        let fate = fates.entry(request.event).or_default();
        fate.requests += 1;
        fate.first.get_or_insert(place);
        if recorded.remove(&(request.event, request.began)).is_none() {
            fate.unrecorded.push(request.began);
        }
    }
    // What is left was never seen by a receiver; without an answer it may have been lost on the way.
    for attempt in recorded
        .into_values()
        .filter(|row| row.http_status.is_some())
    {
        fates.entry(attempt.event_id).or_default().invented += 1;
    }
    fates
}

impl Fate {
    fn check(&self, id: Uuid, seen: &Seen, complaints: &mut Complaints) {
        let mut when = |violated: bool, what: &str| {
            if violated {
                complaints.add(what.to_owned(), &id.to_string());
            }
        };
        when(self.status.is_none(), "committed, and not in PostgreSQL");
        when(self.invented > 0, "with an answer that no receiver gave");
        when(self.successes > 1, "ended by more than one success");
        let lost = |began: &i64| !seen.was_lost(*began);
        when(
            self.unrecorded.iter().any(lost),
            "with an attempt that is not on record, though nobody who made it was killed",
        );
        let late = |began: &i64| !seen.was_overslept(*began);
        when(
            self.superseded.iter().any(late),
            "with an attempt that was superseded, though nobody stood still",
        );
        let explained = self.unrecorded.len() + self.superseded.len() + self.failures;
        let again = self.requests.saturating_sub(1);
        when(
            self.successes == 1 && again > explained,
            "repeated though every outcome was on record",
        );
    }

    /// For a receiver that behaves well. Returns whether all is well.
    fn check_delivered(&self, id: Uuid, complaints: &mut Complaints) -> bool {
        let delivered = self.status.as_deref() == Some("delivered");
        let arrived = self.requests > 0;
        if !delivered || !arrived || self.successes != 1 {
            let what = format!(
                "not delivered to one who takes everything: {}, {} requests, {} successes",
                self.status.as_deref().unwrap_or("nowhere"),
                self.requests,
                self.successes
            );
            complaints.add(what, &id.to_string());
            return false;
        }
        true
    }
}

impl Seen {
    /// Whether a dispatcher was killed that had the outcome of an attempt, which began then, still in hand.
    fn was_lost(&self, began: i64) -> bool {
        let kills = self.strikes.iter().filter(|it| it.kind == Kind::Kill);
        kills.into_iter().any(|kill| {
            let away = self.strikes.iter().filter(|it| {
                it.kind == Kind::PostgresAway
                    && it.from <= kill.to
                    && kill.from <= it.to + CATCHING_UP
            });
            // Outcomes of before may have waited for PostgreSQL.
            let from = away.map(|it| it.from).min().unwrap_or(kill.from);
            self.covers(from.min(kill.from), kill.to, began)
        })
    }

    /// Whether a dispatcher stood still for too long that made an attempt which began then.
    fn was_overslept(&self, began: i64) -> bool {
        let stops = self.strikes.iter().filter(|it| it.kind == Kind::Stop);
        stops
            .into_iter()
            .any(|stop| self.covers(stop.from, stop.to + SLACK, began))
    }

    /// Whether an attempt that began then may have been in hand in that time.
    fn covers(&self, from: DateTime<Utc>, to: DateTime<Utc>, began: i64) -> bool {
        let longest = TimeDelta::from_std(self.webhook_timeout + SLACK).unwrap_or(TimeDelta::MAX);
        ((from - longest).timestamp_millis()..=to.timestamp_millis()).contains(&began)
    }
}

/// Of a webhook, both by their numbers.
type Chat = (usize, usize);
/// The place among all requests, the order of commit, and the event.
type Arrival = (usize, i64, Uuid);

/// In each chat of a webhook that wants order, the first arrivals are in the order of commit.
fn check_order(seen: &Seen, fates: &HashMap<Uuid, Fate>, complaints: &mut Complaints) {
    let mut chats: BTreeMap<Chat, Vec<Arrival>> = BTreeMap::new();
    let well = |kept: Kept| kept.ordered && kept.manner == Manner::Well;
    for committed in seen.committed.iter().filter(|it| well(seen.kept[it.line])) {
        let fate = fates.get(&committed.event);
        if let Some((fate, first)) = fate.and_then(|fate| Some((fate, fate.first?))) {
            let chat = chats.entry((committed.line, committed.chat)).or_default();
            chat.push((first, fate.sequence, committed.event));
        }
    }
    for chat in chats.values_mut() {
        chat.sort_unstable();
        for pair in chat.windows(2) {
            let [(_, before, _), (_, after, event)] = pair else {
                continue;
            };
            if after < before {
                complaints.add("out of order in its chat".to_owned(), &event.to_string());
            }
        }
    }
}
