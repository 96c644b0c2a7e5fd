//! What must be true when all is over, judged from what the simulator, PostgreSQL and the receiver each
//! have seen, by nothing that Recado itself computed.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display};

use uuid::Uuid;

use super::traffic::Sent;
use crate::system::Account;
use crate::system::phones::Written;
use crate::system::postbox::Arrival;
use crate::system::records::{Attempt, Event, Message, StepBack};

/// Of a violation that many messages share, so many are named.
const NAMED: usize = 3;

/// What all saw.
#[derive(Debug, Clone)]
pub struct Observed {
    pub accounts: Vec<Account>,
    pub sent: Vec<Sent>,
    /// By the simulator.
    pub ledger: Vec<Written>,
    /// By PostgreSQL.
    pub messages: Vec<Message>,
    pub events: Vec<Event>,
    pub attempts: Vec<Attempt>,
    pub steps_back: Vec<StepBack>,
    /// By the receiver.
    pub arrivals: Vec<Arrival>,
    /// By the case: how often an event's claim ran out while its dispatcher stood still. Only such an
    /// outcome may come too late.
    pub overslept: HashMap<Uuid, usize>,
    /// By the case: how often PostgreSQL crashed. Claims don't wait for its disk, so each time it may have
    /// forgotten one of any event, which is then claimed anew while the first attempt goes on.
    pub crashes: usize,
}

/// What a case may do.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Whether dispatchers died: then the outcomes of attempts are lost, and these are repeated.
    pub outcomes_get_lost: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub sent: usize,
    /// Sent messages that are in PostgreSQL.
    pub committed: usize,
    /// Sent messages that the receiver has.
    pub delivered: usize,
    pub lost: usize,
    /// Requests that brought what had arrived before.
    pub duplicates: usize,
    /// Requests of whose outcome there is no record.
    pub unrecorded: usize,
    /// Outcomes that were recorded when another claim had taken the place of theirs.
    pub superseded: usize,
    /// Messages that WhatsApp sent more than once, since they had not been acknowledged.
    pub redelivered: usize,
}

impl Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "sent={} committed={} delivered={} lost={} duplicates={} unrecorded={} superseded={} redelivered={}",
            self.sent,
            self.committed,
            self.delivered,
            self.lost,
            self.duplicates,
            self.unrecorded,
            self.superseded,
            self.redelivered,
        )
    }
}

/// What is wrong, if anything, and the figures.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub violations: Vec<String>,
    pub figures: Figures,
}

/// The ids of messages that WhatsApp knows as received and PostgreSQL does not have.
pub fn acked_but_not_committed(ledger: &[Written], messages: &[Message]) -> Vec<String> {
    let committed: HashSet<_> = messages.iter().map(|row| row.message_id.as_str()).collect();
    let acked = ledger.iter().filter(|message| message.acked_at.is_some());
    acked
        .filter(|message| !committed.contains(message.id.as_str()))
        .map(|message| message.id.clone())
        .collect()
}

/// Judges it all.
pub fn judge(observed: &Observed, rules: Rules) -> Verdict {
    let view = View::of(observed);
    let mut complaints = Complaints::default();
    let mut figures = Figures {
        sent: observed.sent.len(),
        ..Figures::default()
    };
    for sent in &observed.sent {
        let committed = view.check_way_in(sent, &mut complaints, &mut figures);
        let delivered = view.check_way_out(sent, rules, &mut complaints, &mut figures);
        figures.lost += usize::from(!committed || !delivered);
    }
    view.check_strangers(&mut complaints);
    for step in &observed.steps_back {
        let (before, after) = (&step.before, &step.after);
        complaints.add(
            format!("changed from {before:?} to {after:?}"),
            &step.event_id.to_string(),
        );
    }
    Verdict {
        violations: complaints.into_lines(),
        figures,
    }
}

type ById<'a, K, T> = HashMap<K, Vec<&'a T>>;

fn by<'a, K: std::hash::Hash + Eq, T>(all: &'a [T], key: impl Fn(&'a T) -> K) -> ById<'a, K, T> {
    let mut map = ById::<K, T>::new();
    for one in all {
        map.entry(key(one)).or_default().push(one);
    }
    map
}

/// What was observed, to be looked up.
struct View<'a> {
    observed: &'a Observed,
    ledger: ById<'a, &'a str, Written>,
    messages: ById<'a, &'a str, Message>,
    events: ById<'a, &'a str, Event>,
    attempts: ById<'a, Uuid, Attempt>,
    /// By the message id in their bodies.
    arrivals: ById<'a, String, Arrival>,
    webhooks: HashMap<&'a str, Uuid>,
}

impl<'a> View<'a> {
    fn of(observed: &'a Observed) -> Self {
        let accounts = observed.accounts.iter();
        Self {
            ledger: by(&observed.ledger, |message| message.id.as_str()),
            messages: by(&observed.messages, |row| row.message_id.as_str()),
            events: by(&observed.events, |row| row.message_id.as_str()),
            attempts: by(&observed.attempts, |row| row.event_id),
            arrivals: by(&observed.arrivals, |arrival| text(arrival, "message_id")),
            webhooks: accounts
                .map(|account| (account.phone.as_str(), account.webhook))
                .collect(),
            observed,
        }
    }

    /// From the phone to the commit. Returns whether the message is in PostgreSQL.
    fn check_way_in(
        &self,
        sent: &Sent,
        complaints: &mut Complaints,
        figures: &mut Figures,
    ) -> bool {
        let id = sent.id.as_str();
        match self.ledger.get(id).map_or(&[][..], Vec::as_slice) {
            [written] => {
                complaints.when(written.acked_at.is_none(), "never acknowledged", id);
                figures.redelivered += usize::from(written.deliveries > 1);
            }
            _ => complaints.when(true, "not once in the simulator's ledger", id),
        }
        match self.messages.get(id).map_or(&[][..], Vec::as_slice) {
            [] => {
                complaints.when(true, "not in PostgreSQL", id);
                return false;
            }
            [row] => {
                complaints.when(
                    row.event_type != "message",
                    "committed as something else",
                    id,
                );
                complaints.when(row.content != sent.text, "committed with another text", id);
                complaints.when(row.to != sent.to, "committed for another account", id);
            }
            _ => complaints.when(true, "in PostgreSQL more than once", id),
        }
        figures.committed += 1;
        true
    }

    /// From the commit to the receiver. Returns whether the message arrived.
    fn check_way_out(
        &self,
        sent: &Sent,
        rules: Rules,
        complaints: &mut Complaints,
        figures: &mut Figures,
    ) -> bool {
        let id = sent.id.as_str();
        match self.events.get(id).map_or(&[][..], Vec::as_slice) {
            [] => complaints.when(true, "without an event", id),
            [event] => self.check_event(sent, event, complaints),
            _ => complaints.when(true, "with more than one event", id),
        }
        let arrivals = self.arrivals.get(id).map_or(&[][..], Vec::as_slice);
        complaints.when(arrivals.is_empty(), "never delivered", id);
        let without_claim = self.overslept(id) + self.observed.crashes;
        let most = 2 + without_claim;
        complaints.when(arrivals.len() > most, "delivered more than twice", id);
        let ids: HashSet<_> = arrivals.iter().map(|arrival| &arrival.webhook_id).collect();
        complaints.when(
            ids.len() > 1,
            "delivered under more than one webhook-id",
            id,
        );
        for arrival in arrivals {
            self.check_arrival(sent, arrival, complaints);
        }
        let recorded = self.check_attempts(id, arrivals.len(), complaints);
        let unrecorded = arrivals.len().saturating_sub(recorded);
        let late = self.attempts_at(id).filter(|row| row.superseded).count();
        complaints.when(
            late > without_claim,
            "superseded though nothing took its claim",
            id,
        );
        let again = arrivals.len().saturating_sub(1);
        complaints.when(
            again > unrecorded + late,
            "repeated though every outcome was recorded",
            id,
        );
        let unexplained = unrecorded > 0 && !rules.outcomes_get_lost;
        complaints.when(unexplained, "with an attempt that is not on record", id);
        figures.duplicates += again;
        figures.unrecorded += unrecorded;
        figures.superseded += late;
        figures.delivered += usize::from(!arrivals.is_empty());
        !arrivals.is_empty()
    }

    fn check_event(&self, sent: &Sent, event: &Event, complaints: &mut Complaints) {
        let id = sent.id.as_str();
        complaints.when(
            event.status != "delivered",
            "with an event that is not delivered",
            id,
        );
        complaints.when(
            event.event_type != "message",
            "with an event of another type",
            id,
        );
        let webhook = self.webhooks.get(sent.to.as_str());
        complaints.when(
            webhook != Some(&event.webhook_id),
            "with another's webhook",
            id,
        );
        let rows = self.messages.get(id).into_iter().flatten();
        let from_its_row = rows.into_iter().any(|row| row.id == event.source_id);
        complaints.when(!from_its_row, "with an event of another message", id);
    }

    fn check_arrival(&self, sent: &Sent, arrival: &Arrival, complaints: &mut Complaints) {
        let id = sent.id.as_str();
        let event = self.events.get(id).and_then(|events| events.first());
        let event = event.map(|event| event.id.to_string());
        complaints.when(
            arrival.webhook_id != event,
            "delivered under another id",
            id,
        );
        complaints.when(
            arrival.event_id != event,
            "delivered with another event id",
            id,
        );
        let named = Some(text(arrival, "event_id"));
        complaints.when(
            named != event,
            "delivered with another event in its body",
            id,
        );
        complaints.when(
            arrival.signature_ok != Some(true),
            "delivered with a wrong signature",
            id,
        );
        if let Some(error) = &arrival.schema_error {
            complaints.add(format!("delivered in another shape ({error})"), id);
        }
        complaints.when(
            text(arrival, "content") != sent.text,
            "delivered with another text",
            id,
        );
        complaints.when(
            text(arrival, "to") != sent.to,
            "delivered as another account's",
            id,
        );
        let path = format!("/hooks/{}", sent.to);
        complaints.when(arrival.path != path, "delivered to another's webhook", id);
    }

    fn attempts_at(&self, id: &str) -> impl Iterator<Item = &'a Attempt> {
        let events = self.events.get(id).into_iter().flatten();
        let attempts = events.filter_map(|event| self.attempts.get(&event.id));
        attempts.flatten().copied()
    }

    /// How often the message's claims ran out in the hands of one who stood still.
    fn overslept(&self, id: &str) -> usize {
        let events = self.events.get(id).into_iter().flatten();
        let times = events.filter_map(|event| self.observed.overslept.get(&event.id));
        times.sum()
    }

    /// One attempt has ended the event, and no record is of an attempt that never came. Returns how
    /// many are on record.
    fn check_attempts(&self, id: &str, arrived: usize, complaints: &mut Complaints) -> usize {
        let attempts: Vec<_> = self.attempts_at(id).collect();
        let is_success = |attempt: &&&Attempt| {
            attempt
                .http_status
                .is_some_and(|status| (200..300).contains(&status))
        };
        let successes = attempts.iter().filter(is_success).count();
        let effective = attempts
            .iter()
            .filter(is_success)
            .filter(|row| !row.superseded)
            .count();
        complaints.when(effective != 1, "not ended by one successful attempt", id);
        complaints.when(
            successes > arrived,
            "with a success that the receiver never saw",
            id,
        );
        attempts.len()
    }

    /// What nobody sent.
    fn check_strangers(&self, complaints: &mut Complaints) {
        let sent: HashSet<_> = self
            .observed
            .sent
            .iter()
            .map(|sent| sent.id.as_str())
            .collect();
        let mut stranger = |id: &str, what: &str| complaints.when(!sent.contains(id), what, id);
        for row in &self.observed.messages {
            stranger(&row.message_id, "in PostgreSQL, but never sent");
        }
        for event in &self.observed.events {
            stranger(&event.message_id, "the message of an event, but never sent");
        }
        for id in self.arrivals.keys() {
            stranger(id, "delivered, but never sent");
        }
        for row in &self.observed.messages {
            if row.event_type != "message" {
                let reason = row.reason.as_deref().unwrap_or("no reason");
                let what = format!("committed as {} ({reason})", row.event_type);
                complaints.add(what, &row.message_id);
            }
        }
        for event in self
            .observed
            .events
            .iter()
            .filter(|event| event.status == "pending")
        {
            complaints.when(true, "still pending", &event.message_id);
        }
    }
}

fn text(arrival: &Arrival, field: &str) -> String {
    arrival.field(field).as_str().unwrap_or_default().to_owned()
}

/// Violations, and the messages that each is about.
#[derive(Default)]
pub(super) struct Complaints(Vec<(String, Vec<String>)>);

impl Complaints {
    fn when(&mut self, violated: bool, what: &str, message: &str) {
        if violated {
            self.add(what.to_owned(), message);
        }
    }

    pub(super) fn add(&mut self, what: String, message: &str) {
        match self.0.iter_mut().find(|(known, _)| *known == what) {
            Some((_, messages)) => messages.push(message.to_owned()),
            None => self.0.push((what, vec![message.to_owned()])),
        }
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        let lines = self.0.into_iter().map(|(what, messages)| {
            let named = messages
                .iter()
                .take(NAMED)
                .map(String::as_str)
                .collect::<Vec<_>>();
            let more = if messages.len() > NAMED { ", …" } else { "" };
            format!("{} {what} ({}{more})", messages.len(), named.join(", "))
        });
        lines.collect()
    }
}
