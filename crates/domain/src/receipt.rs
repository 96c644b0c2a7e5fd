//! What became of messages that an account sent. A receipt is told to the webhooks that ask for it and is kept
//! nowhere else. While an earlier one of the same message, by the same person, has not gone out yet, the
//! newer takes its place: a webhook that is behind hears what is so, and not all that was.

use std::collections::HashMap;

use chrono::TimeDelta;
use diesel::prelude::*;
use diesel::sql_types::{Array, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::event::{self, NewEvent};
use crate::ids;
use crate::statement::{Statement, unclaimed};

/// What is older is not looked for, or each receipt would read every partition: five days is what a webhook that
/// answers nothing is given.
const PENDING: TimeDelta = TimeDelta::days(7);

#[derive(QueryableByName)]
struct Coalesced {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// Adds the events of receipts, or puts them in the place of earlier ones, within the caller's transaction.
/// Returns the ids of those that are new.
pub(crate) async fn insert(
    conn: &mut AsyncPgConnection,
    events: Vec<NewEvent<'_>>,
) -> QueryResult<Vec<Uuid>> {
    let mut events = newest(events);
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let coalesced = coalesce(conn, &events).await?;
    events.retain(|event| !coalesced.contains(&event.id));
    event::insert_new(conn, &events).await
}

/// Of several about the same message by the same person, the newest; in the order in which they came.
fn newest(events: Vec<NewEvent<'_>>) -> Vec<NewEvent<'_>> {
    let mut kept: Vec<NewEvent<'_>> = Vec::with_capacity(events.len());
    let mut places: HashMap<(Uuid, &str, &str), usize> = HashMap::new();
    for event in events {
        let about = (event.webhook_id, event.message_id, event.from);
        match places.get(&about) {
            Some(place) if kept[*place].timestamp <= event.timestamp => kept[*place] = event,
            Some(_) => {}
            None => {
                places.insert(about, kept.len());
                kept.push(event);
            }
        }
    }
    kept
}

/// Returns the ids of those that took an earlier one's place, or came later than it.
async fn coalesce(conn: &mut AsyncPgConnection, events: &[NewEvent<'_>]) -> QueryResult<Vec<Uuid>> {
    macro_rules! column {
        ($field:ident) => {
            events.iter().map(|event| event.$field).collect::<Vec<_>>()
        };
    }
    let Some(oldest) = events.iter().map(|event| event.timestamp).min() else {
        return Ok(Vec::new());
    };
    let coalesced: Vec<Coalesced> = Statement::new(concat!(
        r#"UPDATE whatsapp_webhook_events AS e
           SET content = CASE WHEN e."timestamp" <= new."timestamp" THEN new.content ELSE e.content END,
               metadata = CASE WHEN e."timestamp" <= new."timestamp"
                   THEN new.metadata::json ELSE e.metadata END,
               "timestamp" = greatest(e."timestamp", new."timestamp")
           FROM unnest(?, ?, ?, ?, ?, ?, ?)
               AS new (id, webhook_id, message_id, "from", content, metadata, "timestamp")
           WHERE NOT e.message_stored AND e.message_id <> ''
               AND e.webhook_id = new.webhook_id AND e.message_id = new.message_id
               AND e."from" = new."from" AND e.id <> new.id AND e.id >= ?
               AND e.event_type = 'message.receipt' AND e.status = 'pending'
               AND e.attempt_count = 0 AND "#,
        unclaimed!("e"),
        " RETURNING new.id"
    ))
    .bind::<Array<SqlUuid>, _>(column!(id))
    .bind::<Array<SqlUuid>, _>(column!(webhook_id))
    .bind::<Array<Text>, _>(column!(message_id))
    .bind::<Array<Text>, _>(column!(from))
    .bind::<Array<Text>, _>(column!(content))
    .bind::<Array<Text>, _>(column!(metadata))
    .bind::<Array<Timestamptz>, _>(column!(timestamp))
    .bind::<SqlUuid, _>(ids::floor(oldest - PENDING))
    .load(conn)
    .await?;
    Ok(coalesced.into_iter().map(|Coalesced { id }| id).collect())
}
