//! What happens to a client's events, as it happens: each one's commit, and each attempt at it, in the order of the
//! sequence that both take a number from.
//!
//! A number is taken a moment before its row can be seen, and a greater one may be seen before it. Nothing is told until
//! whoever may have taken a number up to it has ended: see [`Horizon`].

use std::collections::HashSet;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::attempt::Attempt;
use crate::event::Event;
use crate::statement::Statement;

/// What happened, by its number.
#[derive(Debug, Clone)]
pub enum Happening {
    Event(Box<Event>),
    Delivery(Delivery),
}

impl Happening {
    pub fn sequence(&self) -> i64 {
        match self {
            Self::Event(event) => event.sequence,
            Self::Delivery(delivery) => delivery.sequence,
        }
    }
}

/// An attempt that was recorded.
#[derive(Debug, Clone, Serialize, ToSchema, QueryableByName)]
pub struct Delivery {
    #[serde(skip)]
    #[diesel(sql_type = BigInt)]
    pub sequence: i64,
    #[diesel(sql_type = SqlUuid)]
    pub event_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub webhook_id: Uuid,
    /// The event's, now.
    #[schema(required = true)]
    #[diesel(sql_type = Nullable<Text>)]
    pub status: Option<String>,
    #[serde(flatten)]
    #[diesel(embed)]
    pub attempt: Attempt,
}

/// Of each kind, that are read at once.
const MOST: i64 = 200;

/// Up to which number everything can be seen that ever will be.
#[derive(Debug, Default)]
pub struct Horizon {
    awaited: Option<Awaited>,
    reached: Option<i64>,
}

/// A number is reached when all have ended who were writing after it had been taken.
#[derive(Debug)]
struct Awaited {
    number: i64,
    writers: HashSet<String>,
    since: Instant,
}

/// None of ours takes as long. Somebody else's transaction on our tables may never end.
const LONGEST: Duration = Duration::from_secs(30);

impl Horizon {
    /// Looks once more; the number up to which all is to be seen, once one is known.
    pub async fn look(&mut self, conn: &mut AsyncPgConnection) -> QueryResult<Option<i64>> {
        // In this order: who took a number has been writing since before.
        let number = last_number(conn).await?;
        let writers = writers(conn).await?;
        self.note(number, writers, Instant::now());
        Ok(self.reached)
    }

    fn note(&mut self, number: i64, writers: HashSet<String>, now: Instant) {
        let is_over = |awaited: &mut Awaited| {
            awaited.writers.retain(|writer| writers.contains(writer));
            awaited.writers.is_empty() || now - awaited.since > LONGEST
        };
        if let Some(awaited) = self.awaited.take_if(is_over) {
            self.reached = Some(awaited.number);
        }
        match self.awaited {
            Some(_) => {}
            None if writers.is_empty() => self.reached = Some(number),
            None => {
                self.awaited = Some(Awaited {
                    number,
                    writers,
                    since: now,
                });
            }
        }
    }
}

/// The last number that was taken.
async fn last_number(conn: &mut AsyncPgConnection) -> QueryResult<i64> {
    #[derive(QueryableByName)]
    struct Last {
        #[diesel(sql_type = BigInt)]
        number: i64,
    }
    let last: Last = Statement::new(
        "SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END AS number
         FROM whatsapp_webhook_events_sequence",
    )
    .get_result(conn)
    .await?;
    Ok(last.number)
}

/// The transactions that may have inserted into either table: each holds this lock on it from before it takes its first
/// number until what it did can be seen (<https://www.postgresql.org/docs/current/explicit-locking.html>).
async fn writers(conn: &mut AsyncPgConnection) -> QueryResult<HashSet<String>> {
    #[derive(QueryableByName)]
    struct Holder {
        #[diesel(sql_type = Text)]
        writer: String,
    }
    let holders: Vec<Holder> = Statement::new(
        "SELECT DISTINCT virtualtransaction AS writer FROM pg_locks
         WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND relation IN ('whatsapp_webhook_events'::regclass, 'whatsapp_delivery_attempts'::regclass)",
    )
    .load(conn)
    .await?;
    Ok(holders.into_iter().map(|holder| holder.writer).collect())
}

/// What happened behind the number `after` and up to `through`, or some of it, and the number up to which that is all:
/// of all of a client's webhooks, or of one.
pub async fn read(
    conn: &mut AsyncPgConnection,
    client_id: i32,
    webhook_id: Option<Uuid>,
    after: i64,
    through: i64,
) -> QueryResult<(Vec<Happening>, i64)> {
    let mut through = through;
    let events: Vec<Event> = Statement::new(
        "SELECT e.* FROM whatsapp_webhooks w
         CROSS JOIN unnest('{pending,delivered,failed}'::text[]) AS wanted (status)
         CROSS JOIN LATERAL (
             SELECT * FROM whatsapp_webhook_events e
             WHERE e.webhook_id = w.id AND e.status = wanted.status AND e.sequence > ? AND e.sequence <= ?
             ORDER BY e.sequence LIMIT ?) AS e
         WHERE w.client_id = ? AND w.id = coalesce(?, w.id) AND w.deleted_at IS NULL
         ORDER BY e.sequence LIMIT ?",
    )
    .bind::<BigInt, _>(after)
    .bind::<BigInt, _>(through)
    .bind::<BigInt, _>(MOST)
    .bind::<Integer, _>(client_id)
    .bind::<Nullable<SqlUuid>, _>(webhook_id)
    .bind::<BigInt, _>(MOST)
    .load(conn)
    .await?;
    if let Some(last) = events.get(MOST as usize - 1) {
        through = last.sequence;
    }
    let deliveries: Vec<Delivery> = Statement::new(
        "SELECT a.*, e.status FROM (
             SELECT * FROM whatsapp_delivery_attempts a
             WHERE a.client_id = ? AND a.sequence > ? AND a.sequence <= ?
                 AND a.webhook_id = coalesce(?, a.webhook_id)
                 AND (SELECT deleted_at IS NULL FROM whatsapp_webhooks w WHERE w.id = a.webhook_id)
             ORDER BY a.sequence LIMIT ?) AS a
         LEFT JOIN whatsapp_webhook_events e ON e.id = a.event_id
         ORDER BY a.sequence",
    )
    .bind::<Integer, _>(client_id)
    .bind::<BigInt, _>(after)
    .bind::<BigInt, _>(through)
    .bind::<Nullable<SqlUuid>, _>(webhook_id)
    .bind::<BigInt, _>(MOST)
    .load(conn)
    .await?;
    if let Some(last) = deliveries.get(MOST as usize - 1) {
        through = last.sequence;
    }
    let events = events
        .into_iter()
        .map(|event| Happening::Event(Box::new(event)));
    let deliveries = deliveries.into_iter().map(Happening::Delivery);
    let mut all: Vec<Happening> = events.chain(deliveries).collect();
    all.retain(|happening| happening.sequence() <= through);
    all.sort_by_key(Happening::sequence);
    Ok((all, through))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_reached_when_all_who_were_writing_have_ended() {
        let (mut horizon, mut now) = (Horizon::default(), Instant::now());
        let mut look = |number, writers: &[&str]| {
            now += Duration::from_secs(1);
            let writers = writers.iter().map(ToString::to_string).collect();
            horizon.note(number, writers, now);
            horizon.reached
        };
        assert_eq!(look(10, &["3/1"]), None);
        assert_eq!(look(12, &["3/1", "4/7"]), None);
        assert_eq!(look(15, &["3/2", "4/7"]), Some(10), "3/1 has ended");
        assert_eq!(look(15, &["4/7"]), Some(10));
        assert_eq!(look(15, &[]), Some(15));
        assert_eq!(look(16, &[]), Some(16));
        // One that does not end holds nobody up for ever.
        let stuck: Vec<_> = (0..40).map(|_| look(20, &["5/1"])).collect();
        assert_eq!((stuck[29], stuck[39]), (Some(16), Some(20)));
    }
}
