//! An event: one message (or change) on its way to one webhook.

mod list;
mod range;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

pub use self::list::{Filter, List, Status, TOTAL_CAP};
pub use self::range::Range;
use crate::dead_letter;
use crate::event_type::EventType;
use crate::parking;
use crate::payload::Payload;
use crate::schema::{whatsapp_webhook_events as events, whatsapp_webhooks as webhooks};
use crate::statement::Statement;

/// How long after its commit an event waits for its doorbell before the poller takes it, in seconds.
pub const DOORBELL_GRACE: f64 = 5.0;

/// A row as clients see it.
#[derive(Debug, Clone, Queryable, QueryableByName, Selectable)]
#[diesel(table_name = events, check_for_backend(diesel::pg::Pg))]
pub struct Event {
    pub id: Uuid,
    pub sequence: i64,
    pub client_id: i32,
    pub webhook_id: Uuid,
    pub connection_id: Option<Uuid>,
    pub event_type: String,
    pub message_id: String,
    pub from: String,
    pub to: String,
    pub message_type: String,
    pub content: String,
    pub metadata: serde_json::Value,
    pub timestamp: DateTime<Utc>,
    pub status: String,
    pub attempt_count: i32,
    pub next_retry_at: Option<DateTime<Utc>>,
    pub parked: Option<String>,
    pub http_status: Option<i32>,
    pub error: Option<String>,
    pub response: Option<String>,
    pub created_at: DateTime<Utc>,
    pub delivered_at: Option<DateTime<Utc>>,
}

/// An event to be committed with its source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewEvent<'a> {
    pub(crate) id: Uuid,
    pub(crate) client_id: i32,
    pub(crate) webhook_id: Uuid,
    pub(crate) connection_id: Option<Uuid>,
    /// The chat, where the webhook wants order.
    pub(crate) order_key: Option<&'a str>,
    pub(crate) source_id: Uuid,
    /// Whether its source is a message that is kept.
    pub(crate) message_stored: bool,
    pub(crate) event_type: EventType,
    pub(crate) message_id: &'a str,
    pub(crate) chat: &'a str,
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) message_type: &'a str,
    pub(crate) content: &'a str,
    pub(crate) metadata: &'a str,
    pub(crate) timestamp: DateTime<Utc>,
}

/// What became of a request to deliver an event again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// It is due now.
    Requeued,
    /// Its webhook was deleted, or has been deactivated: it would go nowhere.
    NoReceiver,
    /// The client has no such event.
    NotFound,
}

impl Event {
    pub async fn find(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        id: Uuid,
    ) -> QueryResult<Option<Self>> {
        events::table
            .find(id)
            .filter(events::client_id.eq(client_id))
            .select(Self::as_select())
            .first(conn)
            .await
            .optional()
    }

    /// What is sent to the webhook for this event.
    pub fn payload(&self) -> serde_json::Result<serde_json::Value> {
        let metadata = serde_json::value::to_raw_value(&self.metadata)?;
        serde_json::to_value(Payload {
            client_id: self.client_id,
            message_id: &self.message_id,
            from: &self.from,
            to: &self.to,
            timestamp: self.timestamp,
            message_type: &self.message_type,
            content: &self.content,
            metadata: &metadata,
            event: &self.event_type,
            event_id: self.id,
            connection_id: self.connection_id,
        })
    }

    /// Makes an event due at once with all its attempts before it, whatever became of it. A claim
    /// that is out on it is fenced off: what it brings is recorded as superseded. Behind an open circuit
    /// it is the next probe, and that goes out at once.
    pub async fn requeue(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        id: Uuid,
    ) -> QueryResult<Requeue> {
        conn.transaction(async |conn| {
            let receiver: Option<(bool, Uuid, i64)> = events::table
                .inner_join(webhooks::table.on(webhooks::id.eq(events::webhook_id)))
                .filter(events::id.eq(id))
                .filter(events::client_id.eq(client_id))
                .select((
                    webhooks::deleted_at.is_null().and(webhooks::is_active),
                    events::webhook_id,
                    events::sequence,
                ))
                .first(conn)
                .await
                .optional()?;
            let (webhook, sequence) = match receiver {
                None => return Ok(Requeue::NotFound),
                Some((false, ..)) => return Ok(Requeue::NoReceiver),
                Some((true, webhook, sequence)) => (webhook, sequence),
            };
            diesel::update(events::table.find(id))
                .set((
                    events::status.eq("pending"),
                    events::attempt_count.eq(0),
                    events::claim_token.eq(None::<Uuid>),
                    events::claimed_until.eq(None::<DateTime<Utc>>),
                    events::next_retry_at.eq(diesel::dsl::now),
                    events::parked.eq(None::<String>),
                    events::http_status.eq(None::<i32>),
                    events::error.eq(None::<String>),
                    events::response.eq(None::<String>),
                    events::delivered_at.eq(None::<DateTime<Utc>>),
                    events::dead_letter_deleted_at.eq(None::<DateTime<Utc>>),
                ))
                .execute(conn)
                .await?;
            dead_letter::delete(conn, id).await?;
            parking::probe_next(conn, webhook, id, sequence).await?;
            Ok(Requeue::Requeued)
        })
        .await
    }
}

/// Inserts events in slice order and returns the ids of those that were not there before, in that
/// order.
pub(crate) async fn insert_new(
    conn: &mut AsyncPgConnection,
    batch: &[NewEvent<'_>],
) -> QueryResult<Vec<Uuid>> {
    #[derive(QueryableByName)]
    struct Inserted {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    macro_rules! column {
        ($field:ident) => {
            batch.iter().map(|e| e.$field).collect::<Vec<_>>()
        };
    }
    let event_types: Vec<&str> = batch.iter().map(|e| e.event_type.as_str()).collect();
    let inserted: Vec<Inserted> = Statement::new(
        r#"INSERT INTO whatsapp_webhook_events (id, client_id, webhook_id, connection_id, source_id,
               event_type, message_id, chat, "from", "to", message_type, content, metadata, "timestamp",
               order_key, message_stored, next_retry_at)
           SELECT id, client_id, webhook_id, connection_id, source_id,
               event_type, message_id, chat, "from", "to", message_type, content, metadata::json, "timestamp",
               order_key, message_stored, now() + make_interval(secs => ?)
           FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
               AS new (id, client_id, webhook_id, connection_id, source_id,
                       event_type, message_id, chat, "from", "to", message_type, content, metadata, "timestamp", order_key,
                       message_stored)
           ON CONFLICT DO NOTHING
           RETURNING id"#,
    )
    .bind::<Double, _>(DOORBELL_GRACE)
    .bind::<Array<SqlUuid>, _>(column!(id))
    .bind::<Array<Integer>, _>(column!(client_id))
    .bind::<Array<SqlUuid>, _>(column!(webhook_id))
    .bind::<Array<Nullable<SqlUuid>>, _>(column!(connection_id))
    .bind::<Array<SqlUuid>, _>(column!(source_id))
    .bind::<Array<Text>, _>(event_types)
    .bind::<Array<Text>, _>(column!(message_id))
    .bind::<Array<Text>, _>(column!(chat))
    .bind::<Array<Text>, _>(column!(from))
    .bind::<Array<Text>, _>(column!(to))
    .bind::<Array<Text>, _>(column!(message_type))
    .bind::<Array<Text>, _>(column!(content))
    .bind::<Array<Text>, _>(column!(metadata))
    .bind::<Array<Timestamptz>, _>(column!(timestamp))
    .bind::<Array<Nullable<Text>>, _>(column!(order_key))
    .bind::<Array<Bool>, _>(column!(message_stored))
    .load(conn)
    .await?;
    Ok(inserted.into_iter().map(|row| row.id).collect())
}
