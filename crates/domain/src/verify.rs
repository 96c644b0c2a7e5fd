//! The promise as something that can be asked at any time, from PostgreSQL alone: every message became
//! the events that it was to become, and every event is delivered, failed with a dead letter, or waits in
//! a way that ends.
//!
//! Each rule holds in every snapshot of the database, whatever runs meanwhile, so a single row that
//! breaks it is a loss or a bug. Large tables are looked through in ranges of ids, each a statement of
//! its own: no snapshot is held for long, and nothing is locked or written.

mod pending;
mod ranges;

use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Double, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::Serialize;
use uuid::Uuid;

use self::pending::Look;
use self::ranges::{Range, Scan};
use crate::ids;
use crate::statement::Statement;

/// What must be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    FanOut,
    Settled,
    Looked,
    Proven,
    InTurn,
    Claims,
    Due,
}

impl Rule {
    pub const ALL: [Self; 7] = [
        Self::FanOut,
        Self::Settled,
        Self::Looked,
        Self::Proven,
        Self::InTurn,
        Self::Claims,
        Self::Due,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FanOut => "fan_out",
            Self::Settled => "settled",
            Self::Looked => "looked",
            Self::Proven => "proven",
            Self::InTurn => "in_turn",
            Self::Claims => "claims",
            Self::Due => "due",
        }
    }

    /// In a sentence, for whoever runs this.
    pub const fn text(self) -> &'static str {
        match self {
            Self::FanOut => "each message has as many events as it was to become",
            Self::Settled => {
                "each event is delivered, failed with a dead letter that is there or was deleted by its \
                 client, due at some time, or parked with a reason"
            }
            Self::Looked => {
                "each parked event's webhook is to be looked at, or is not active for now"
            }
            Self::Proven => "each delivered event has an attempt on record that succeeded",
            Self::InTurn => {
                "each event that waits for its turn has an earlier one of its chat before it"
            }
            Self::Claims => "no claim is long past its deadline",
            Self::Due => "no event is due for long",
        }
    }

    fn way(self) -> Way {
        match self {
            Self::FanOut => Way::InRanges(Scan::FanOut),
            Self::Settled => Way::InRanges(Scan::Settled),
            Self::Proven => Way::InRanges(Scan::Proven),
            Self::InTurn => Way::InRanges(Scan::InTurn),
            Self::Looked => Way::AtOnce(Look::Looked),
            Self::Claims => Way::AtOnce(Look::Claims),
            Self::Due => Way::AtOnce(Look::Due),
        }
    }

    /// Of what is broken when this is: the promise, or only the pace at which it is kept, as when no
    /// dispatcher runs.
    pub const fn is_warning(self) -> bool {
        matches!(self, Self::Claims | Self::Due)
    }
}

/// How a rule is looked into.
enum Way {
    InRanges(Scan),
    AtOnce(Look),
}

/// What was seen of one rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub rule: Rule,
    /// What the rule speaks of: messages, events, or webhooks with parked events.
    pub checked: i64,
    pub violations: i64,
    /// Of the first of them, at most [`SHOWN`].
    pub ids: Vec<Uuid>,
    /// Of the warnings: since when the oldest should have gone.
    pub oldest_seconds: Option<f64>,
}

/// Ids that a finding names.
pub const SHOWN: usize = 10;
/// Minutes after which a claim or a due event is one that nobody looks after.
const OVERDUE_MINUTES: i32 = 5;
/// How far back [`violations`] looks, and ahead, since WhatsApp's clock is not PostgreSQL's.
const RECENT: TimeDelta = TimeDelta::minutes(10);

impl Finding {
    fn new(rule: Rule) -> Self {
        Self {
            rule,
            checked: 0,
            violations: 0,
            ids: Vec::new(),
            oldest_seconds: None,
        }
    }

    /// Whether the promise is broken.
    pub fn is_broken(&self) -> bool {
        self.violations > 0 && !self.rule.is_warning()
    }

    fn add(&mut self, seen: Seen) {
        self.checked += seen.checked;
        self.violations += seen.violations;
        self.ids.extend(seen.ids.unwrap_or_default());
        self.ids.truncate(SHOWN);
        self.oldest_seconds = seen.oldest_seconds.or(self.oldest_seconds);
    }
}

#[derive(QueryableByName)]
struct Seen {
    #[diesel(sql_type = BigInt)]
    checked: i64,
    #[diesel(sql_type = BigInt)]
    violations: i64,
    #[diesel(sql_type = Nullable<Array<SqlUuid>>)]
    ids: Option<Vec<Uuid>>,
    #[diesel(sql_type = Nullable<Double>)]
    oldest_seconds: Option<f64>,
}

/// Looks through everything, and returns a finding for each rule.
///
/// `retention_days` is the dispatchers': what is past it, or will be in a day, may have lost its other
/// half to the upkeep already, and is not asked for it. Takes as long as it takes to read the messages'
/// and events' tables once.
pub async fn run(
    conn: &mut AsyncPgConnection,
    retention_days: Option<u32>,
) -> QueryResult<Vec<Finding>> {
    let kept = match retention_days {
        Some(days) => kept_from(now(conn).await?, days),
        None => Uuid::nil(),
    };
    let mut findings = Vec::new();
    for rule in Rule::ALL {
        let mut finding = Finding::new(rule);
        match rule.way() {
            Way::AtOnce(look) => finding.add(look.check(conn).await?),
            Way::InRanges(scan) => {
                let mut from = Some(scan.from(kept));
                while let Some(first) = from {
                    let range = scan.range(conn, first).await?;
                    finding.add(scan.check(conn, range).await?);
                    from = range.next();
                }
            }
        }
        findings.push(finding);
    }
    Ok(findings)
}

/// The rules over what is recent: messages and events whose ids are of the last ten minutes (what comes
/// late, out of an offline queue, has the id of when it was sent and is not among them), and all that is
/// pending. Made to be asked every minute or so, for a metric: `recado_violations{rule}` is to be 0.
pub async fn violations(conn: &mut AsyncPgConnection) -> QueryResult<Vec<Finding>> {
    let now = now(conn).await?;
    let recent = Range {
        first: ids::floor(now - RECENT),
        last: ids::floor(now + RECENT),
    };
    let mut findings = Vec::new();
    for rule in Rule::ALL {
        let mut finding = Finding::new(rule);
        finding.add(match rule.way() {
            Way::AtOnce(look) => look.check(conn).await?,
            Way::InRanges(scan) => scan.check(conn, recent).await?,
        });
        findings.push(finding);
    }
    Ok(findings)
}

/// The first id that the upkeep leaves alone today and tomorrow.
fn kept_from(now: DateTime<Utc>, retention_days: u32) -> Uuid {
    let oldest_kept = now.date_naive() - Days::new(u64::from(retention_days));
    let day_after = oldest_kept + Days::new(1);
    ids::floor(day_after.and_time(NaiveTime::MIN).and_utc())
}

async fn now(conn: &mut AsyncPgConnection) -> QueryResult<DateTime<Utc>> {
    #[derive(QueryableByName)]
    struct Now {
        #[diesel(sql_type = Timestamptz)]
        now: DateTime<Utc>,
    }
    let now: Now = Statement::new("SELECT now() AS now")
        .get_result(conn)
        .await?;
    Ok(now.now)
}
