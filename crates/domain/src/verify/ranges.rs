//! The rules over whole tables, which are looked through in ranges of ids.

use diesel::prelude::*;
use diesel::sql_types::{Array, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::Seen;
use crate::parking::Reason;
use crate::statement::Statement;

/// Both ends are in it. It ends with a millisecond, since that is what a message's events have in common
/// with it: a range of messages holds their events' ids too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: Uuid,
    pub(super) last: Uuid,
}

impl Range {
    /// Where the next one begins, if there is more.
    pub(super) fn next(self) -> Option<Uuid> {
        self.last.as_u128().checked_add(1).map(Uuid::from_u128)
    }
}

/// The last id of the same millisecond.
fn end_of_millisecond(id: Uuid) -> Uuid {
    let mut bytes = *id.as_bytes();
    bytes[6..].fill(0xff);
    Uuid::from_bytes(bytes)
}

/// What is counted: the rows that the rule speaks of, and those `bad` ones among them.
macro_rules! counted {
    ($rows:expr) => {
        concat!(
            "WITH seen AS MATERIALIZED (",
            $rows,
            ") SELECT count(*) AS checked, count(*) FILTER (WHERE bad) AS violations,
                 (array_agg(id ORDER BY id) FILTER (WHERE bad))[1:10] AS ids, NULL::float8 AS oldest_seconds
             FROM seen"
        )
    };
}

/// The least id of a moment, as [`crate::ids::floor`] makes it.
macro_rules! floor {
    ($at:literal) => {
        concat!(
            "(lpad(to_hex(greatest(extract(epoch FROM ",
            $at,
            ") * 1000, 0)::bigint), 12, '0') || repeat('0', 20))::uuid"
        )
    };
}

/// In one snapshot a message is there with all of its events or not at all.
const FAN_OUT: &str = counted!(
    "SELECT m.id, m.fan_out <> coalesce(became.count, 0) AS bad
     FROM whatsapp_messages m
     LEFT JOIN (SELECT source_id, count(*) AS count FROM whatsapp_webhook_events
                WHERE id BETWEEN ? AND ? GROUP BY source_id) became ON became.source_id = m.id
     WHERE m.id BETWEEN ? AND ?"
);

const SETTLED: &str = counted!(
    "SELECT e.id, CASE e.status
         WHEN 'delivered' THEN false
         WHEN 'failed' THEN e.dead_letter_deleted_at IS NULL AND NOT EXISTS (
             SELECT FROM whatsapp_dead_letters d WHERE d.event_id = e.id)
         ELSE e.next_retry_at IS NULL AND (e.parked IS NULL OR e.parked <> ALL (?)) END AS bad
     FROM whatsapp_webhook_events e WHERE e.id BETWEEN ? AND ?"
);

/// An attempt's id is of about the time of its outcome, so it is looked for there first. It is older when
/// the outcome had to wait for PostgreSQL.
const PROVEN: &str = counted!(concat!(
    "SELECT e.id, NOT coalesce(
         (SELECT true FROM whatsapp_delivery_attempts a
          WHERE a.event_id = e.id AND NOT a.superseded AND a.error_class IS NULL
            AND a.id >= ",
    floor!("e.delivered_at - interval '6 hours'"),
    " AND a.id < ",
    floor!("e.delivered_at + interval '1 hour'"),
    " LIMIT 1),
         (SELECT true FROM whatsapp_delivery_attempts a
          WHERE a.event_id = e.id AND NOT a.superseded AND a.error_class IS NULL LIMIT 1),
         false) AS bad
     FROM whatsapp_webhook_events e WHERE e.id BETWEEN ? AND ? AND e.status = 'delivered'"
));

/// The event before it is through in the transaction that calls it. Where order is no longer wanted,
/// nothing holds it.
const IN_TURN: &str = counted!(
    "SELECT e.id, NOT EXISTS (
         SELECT FROM whatsapp_webhook_events earlier
         WHERE earlier.webhook_id = e.webhook_id AND earlier.order_key = e.order_key
           AND earlier.status = 'pending' AND earlier.sequence < e.sequence) AS bad
     FROM whatsapp_webhook_events e JOIN whatsapp_webhooks w ON w.id = e.webhook_id
     WHERE e.id BETWEEN ? AND ? AND e.status = 'pending' AND e.parked = ? AND w.ordered
       AND w.is_active AND w.deleted_at IS NULL"
);

/// The last row of a range.
macro_rules! nth {
    ($table:literal) => {
        concat!(
            "SELECT id FROM ",
            $table,
            " WHERE id >= ? ORDER BY id OFFSET 9999 LIMIT 1"
        )
    };
}

#[derive(Clone, Copy)]
pub(super) enum Scan {
    FanOut,
    Settled,
    Proven,
    InTurn,
}

impl Scan {
    /// Where to begin. An event answers for itself as long as there is one; a message needs its events,
    /// and a delivered event its attempts, of which retention may have taken the older ones.
    pub(super) fn from(self, kept: Uuid) -> Uuid {
        match self {
            Self::FanOut | Self::Proven => kept,
            Self::Settled | Self::InTurn => Uuid::nil(),
        }
    }

    /// The next range from there.
    pub(super) async fn range(
        self,
        conn: &mut AsyncPgConnection,
        first: Uuid,
    ) -> QueryResult<Range> {
        #[derive(QueryableByName)]
        struct Last {
            #[diesel(sql_type = SqlUuid)]
            id: Uuid,
        }
        let nth = match self {
            Self::FanOut => nth!("whatsapp_messages"),
            Self::Settled | Self::Proven | Self::InTurn => nth!("whatsapp_webhook_events"),
        };
        let last: Option<Last> = Statement::new(nth)
            .bind::<SqlUuid, _>(first)
            .get_result(conn)
            .await
            .optional()?;
        let last = last.map_or(Uuid::max(), |last| end_of_millisecond(last.id));
        Ok(Range { first, last })
    }

    pub(super) async fn check(
        self,
        conn: &mut AsyncPgConnection,
        Range { first, last }: Range,
    ) -> QueryResult<Seen> {
        let text = match self {
            Self::FanOut => FAN_OUT,
            Self::Settled => SETTLED,
            Self::Proven => PROVEN,
            Self::InTurn => IN_TURN,
        };
        let mut statement = Statement::new(text);
        if let Self::Settled = self {
            let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
            statement = statement.bind::<Array<Text>, _>(reasons);
        }
        statement = statement.bind::<SqlUuid, _>(first).bind::<SqlUuid, _>(last);
        statement = match self {
            Self::FanOut => statement.bind::<SqlUuid, _>(first).bind::<SqlUuid, _>(last),
            Self::InTurn => statement.bind::<Text, _>(Reason::Order.as_str()),
            Self::Settled | Self::Proven => statement,
        };
        statement.get_result(conn).await
    }
}
