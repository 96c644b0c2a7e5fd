//! A span of time, as requests name one.

use chrono::{DateTime, Utc};

/// From the first, before the second: when an event was committed, or when a dead letter became one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span {
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
}

/// All that is committed is from the first on and before the second. What a request says beyond them says no more than
/// they do, and PostgreSQL may not know it.
pub(crate) const FIRST: DateTime<Utc> = DateTime::UNIX_EPOCH;
/// The year 10000.
pub(crate) const LAST: DateTime<Utc> = DateTime::from_timestamp(253_402_300_800, 0).unwrap();

impl Span {
    /// Both ends are optional; `None` when it would end before it has begun.
    pub fn new(since: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Option<Self> {
        let in_order = since.zip(until).is_none_or(|(since, until)| since < until);
        let known = |at: DateTime<Utc>| at.clamp(FIRST, LAST);
        in_order.then_some(Self {
            since: since.map(known),
            until: until.map(known),
        })
    }

    pub(crate) fn holds(&self, at: DateTime<Utc>) -> bool {
        self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at < until)
    }
}
