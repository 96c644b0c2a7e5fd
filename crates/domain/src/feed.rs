//! What happens to a client's events, as it happens: each one's commit, and each attempt at it, in the order of the
//! sequence that both take a number from.
//!
//! A number is taken a moment before its row can be seen, and a greater one may be seen before it. Nothing is told until
//! all numbers up to it belong to transactions that have ended: see [`Horizon`].

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
const MOST: i64 = 500;

/// Up to which number everything can be seen that ever will be.
#[derive(Debug, Default)]
pub struct Horizon {
    /// The last number that was taken when it was looked at before.
    taken: Option<i64>,
    /// A number, and the transaction before which all must have ended for it to be behind the horizon. Whoever took a
    /// number by one look has begun to write by the next, so that it is known as a transaction.
    awaited: Option<(i64, i64)>,
    reached: i64,
}

#[derive(QueryableByName)]
struct Look {
    #[diesel(sql_type = BigInt)]
    taken: i64,
    #[diesel(sql_type = BigInt)]
    oldest: i64,
    #[diesel(sql_type = BigInt)]
    next: i64,
}

impl Look {
    async fn take(conn: &mut AsyncPgConnection) -> QueryResult<Self> {
        Statement::new(
            "SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END AS taken,
                 pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest,
                 pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next
             FROM whatsapp_webhook_events_sequence",
        )
        .get_result(conn)
        .await
    }
}

impl Horizon {
    /// Looks again, a moment later; the number up to which all is to be seen. It is some looks behind.
    pub async fn look(&mut self, conn: &mut AsyncPgConnection) -> QueryResult<i64> {
        let look = Look::take(conn).await?;
        self.note(&look);
        Ok(self.reached)
    }

    fn note(&mut self, look: &Look) {
        if let Some((number, _)) = self.awaited.take_if(|(_, before)| look.oldest >= *before) {
            self.reached = number;
        }
        if self.awaited.is_none() {
            self.awaited = self.taken.map(|taken| (taken, look.next));
        }
        self.taken = Some(look.taken);
    }
}

/// The last number that was taken: what happens from now on has greater ones.
pub async fn now(conn: &mut AsyncPgConnection) -> QueryResult<i64> {
    Ok(Look::take(conn).await?.taken)
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
        "SELECT a.*, e.status FROM whatsapp_webhooks w
         CROSS JOIN LATERAL (
             SELECT * FROM whatsapp_delivery_attempts a
             WHERE a.webhook_id = w.id AND a.sequence > ? AND a.sequence <= ?
             ORDER BY a.sequence LIMIT ?) AS a
         LEFT JOIN whatsapp_webhook_events e ON e.id = a.event_id
         WHERE w.client_id = ? AND w.id = coalesce(?, w.id) AND w.deleted_at IS NULL
         ORDER BY a.sequence LIMIT ?",
    )
    .bind::<BigInt, _>(after)
    .bind::<BigInt, _>(through)
    .bind::<BigInt, _>(MOST)
    .bind::<Integer, _>(client_id)
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
    fn a_number_is_reached_when_all_that_wrote_by_the_next_look_have_ended() {
        let mut horizon = Horizon::default();
        let mut look = |taken, oldest, next| {
            horizon.note(&Look {
                taken,
                oldest,
                next,
            });
            horizon.reached
        };
        // 10 is taken by transaction 3, which is seen from the next look on.
        assert_eq!(look(10, 3, 3), 0);
        assert_eq!(look(12, 3, 5), 0);
        assert_eq!(look(12, 3, 9), 0, "3 is under way");
        assert_eq!(look(15, 5, 9), 10);
        // 12 was taken when all before 9 had begun.
        assert_eq!(look(15, 8, 9), 10);
        assert_eq!(look(15, 9, 9), 12);
        assert_eq!(look(15, 9, 9), 15);
    }
}
