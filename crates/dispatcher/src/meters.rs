//! What is counted and measured; the names are what `/metrics` shows.

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::deliver::{Attempt, Class};
use crate::inline::Outcome;

/// Why a claim was given back without an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reason {
    /// The webhook's lane had no room.
    Full,
    /// The webhook's rate, or its client's, is used up.
    Limited,
    /// Too little of the claim's time was left.
    Late,
    /// The dispatcher stops.
    Stopping,
    /// The fault is ours: a secret that can't be opened, a panic.
    Fault,
}

pub(crate) struct Meters {
    delivered: Counter,
    failed: Vec<Counter>,
    duration: Histogram,
    pub(crate) commit_to_attempt: Histogram,
    pub(crate) in_flight: Gauge,
    pub(crate) claimed: Gauge,
    pub(crate) rung: Counter,
    pub(crate) polled: Counter,
    pub(crate) oldest_due: Gauge,
    pub(crate) set_aside: Counter,
    pub(crate) resumed: Counter,
    pub(crate) probed: Counter,
    pub(crate) malformed_rings: Counter,
    released: [Counter; 5],
    inline_media: [Counter; 4],
    pub(crate) batch: Histogram,
    pub(crate) superseded: Counter,
    pub(crate) unrecordable: Counter,
}

impl Meters {
    pub(crate) fn new() -> Self {
        describe();
        let attempts = |class| counter!("recado_dispatcher_attempts_total", "result" => class);
        let claims = |source| counter!("recado_dispatcher_claims_total", "source" => source);
        let released = |reason| counter!("recado_dispatcher_released_total", "reason" => reason);
        let inline_media = |outcome: Outcome| counter!("recado_dispatcher_inline_media_total", "outcome" => outcome.as_str());
        Self {
            delivered: attempts("delivered"),
            failed: Class::ALL
                .iter()
                .map(|class| attempts(class.as_str()))
                .collect(),
            duration: histogram!("recado_dispatcher_attempt_seconds"),
            commit_to_attempt: histogram!("recado_dispatcher_commit_to_attempt_seconds"),
            in_flight: gauge!("recado_dispatcher_in_flight"),
            claimed: gauge!("recado_dispatcher_claimed"),
            rung: claims("ring"),
            polled: claims("poll"),
            oldest_due: gauge!("recado_dispatcher_oldest_due_seconds"),
            set_aside: counter!("recado_dispatcher_set_aside_total"),
            resumed: counter!("recado_dispatcher_resumed_total"),
            probed: claims("probe"),
            malformed_rings: counter!("recado_dispatcher_malformed_rings_total"),
            released: ["full", "limited", "late", "stopping", "fault"].map(released),
            inline_media: Outcome::ALL.map(inline_media),
            batch: histogram!("recado_dispatcher_record_batch"),
            superseded: counter!("recado_dispatcher_superseded_total"),
            unrecordable: counter!("recado_dispatcher_unrecordable_total"),
        }
    }

    pub(crate) fn attempted(&self, attempt: &Attempt) {
        self.duration.record(attempt.took.as_secs_f64());
        match &attempt.failure {
            None => self.delivered.increment(1),
            Some(failure) => self.failed[failure.class as usize].increment(1),
        }
    }

    pub(crate) fn inline_media(&self, outcome: Outcome) {
        self.inline_media[outcome as usize].increment(1);
    }

    pub(crate) fn released(&self, reason: Reason) {
        self.released[reason as usize].increment(1);
    }
}

fn describe() {
    describe_counter!(
        "recado_dispatcher_attempts_total",
        "Requests that ended: delivered, or the class of their failure."
    );
    describe_histogram!(
        "recado_dispatcher_attempt_seconds",
        "How long requests took."
    );
    describe_histogram!(
        "recado_dispatcher_commit_to_attempt_seconds",
        "From an event's commit to the beginning of its first attempt."
    );
    describe_gauge!("recado_dispatcher_in_flight", "Requests under way.");
    describe_gauge!(
        "recado_dispatcher_claimed",
        "Events in hand: claimed, and neither recorded nor given back."
    );
    describe_counter!(
        "recado_dispatcher_claims_total",
        "Events claimed, by what told of them."
    );
    describe_gauge!(
        "recado_dispatcher_oldest_due_seconds",
        "How long the oldest event of the last poll had been due."
    );
    describe_counter!(
        "recado_dispatcher_set_aside_total",
        "Due events that were parked, or given up, as their webhook or their chat is not to have them now."
    );
    describe_counter!(
        "recado_dispatcher_resumed_total",
        "Parked events that were made due."
    );
    describe_counter!(
        "recado_dispatcher_malformed_rings_total",
        "Rings that held no id."
    );
    describe_counter!(
        "recado_dispatcher_released_total",
        "Claims given back unattempted."
    );
    describe_counter!(
        "recado_dispatcher_inline_media_total",
        "Files that a delivery was to carry: inlined, or why they were not."
    );
    describe_histogram!(
        "recado_dispatcher_record_batch",
        "Attempts recorded in one commit."
    );
    describe_counter!(
        "recado_dispatcher_superseded_total",
        "Attempts whose claim was no longer held when they were recorded."
    );
    describe_counter!(
        "recado_dispatcher_unrecordable_total",
        "Attempts that PostgreSQL refused to record."
    );
    describe_gauge!(
        "recado_violations",
        "Of a rule that is to hold always, how often it was found not to, by the dispatcher that asks; NaN when it could not."
    );
    describe_counter!(
        "recado_dispatcher_errors_total",
        "Failed tries to reach PostgreSQL or Redis, by stage."
    );
}
