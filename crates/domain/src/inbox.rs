//! The promise: a message and the events it becomes are committed together, once, before anybody
//! tells WhatsApp that it was received.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use uuid::Uuid;

use crate::event::{self, NewEvent};
use crate::event_type::EventType;
use crate::ids;
use crate::message::{self, NewMessage};
use crate::receipt;
use crate::webhook::{self, Listener};

/// What a call of [`accept`] added.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Messages that were not there before.
    pub messages: usize,
    /// The new events' ids, in the order of commit: what is to be rung.
    pub events: Vec<Uuid>,
}

/// Commits messages, in slice order, and one event per webhook that matches each, in one transaction.
///
/// Receipts become events and nothing else (`receipt`).
///
/// Ids are derived, so a message that is here already, or stands in the batch twice, adds nothing.
/// Any error leaves nothing behind; [`crate::failure::classify`] says whether to try again.
pub async fn accept(conn: &mut AsyncPgConnection, batch: &[&NewMessage]) -> QueryResult<Accepted> {
    if batch.is_empty() {
        return Ok(Accepted::default());
    }
    conn.transaction(async |conn| {
        let connections: Vec<Uuid> = batch
            .iter()
            .map(|message| message.connection_id)
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        let listeners = Listeners::of(webhook::listening(conn, &connections).await?);

        let (receipts, batch): (Vec<&NewMessage>, Vec<&NewMessage>) = batch
            .iter()
            .partition(|message| message.event_type == EventType::MessageReceipt);
        let mut events = receipt::insert(conn, listeners.events(&receipts)).await?;
        if batch.is_empty() {
            return Ok(Accepted {
                messages: 0,
                events,
            });
        }

        let fan_out: Vec<i32> = batch
            .iter()
            .map(|m| listeners.to(m.connection_id, m.event_type).count() as i32)
            .collect();
        let mut new: HashSet<Uuid> = message::insert_new(conn, &batch, &fan_out)
            .await?
            .into_iter()
            .collect();
        let messages = new.len();

        let batch: Vec<&NewMessage> = batch
            .into_iter()
            .filter(|message| new.remove(&message.id))
            .collect();
        events.extend(event::insert_new(conn, &listeners.events(&batch)).await?);
        Ok(Accepted { messages, events })
    })
    .await
}

/// Something that happened to a connection, told to the webhooks of its number.
#[derive(Debug, Clone)]
pub struct Notice {
    pub client_id: i32,
    pub connection_id: Uuid,
    pub phone_number: String,
    pub event_type: EventType,
    /// One of [`ids`]'s: what makes this notice the same when it is given twice.
    pub source_id: Uuid,
    /// A JSON object in its written form.
    pub metadata: String,
    pub at: DateTime<Utc>,
}

/// Adds the notice's events within the caller's transaction; returns the new ones' ids.
pub async fn announce(conn: &mut AsyncPgConnection, notice: &Notice) -> QueryResult<Vec<Uuid>> {
    let listeners = Listeners::of(webhook::listening(conn, &[notice.connection_id]).await?);
    let events: Vec<NewEvent<'_>> = listeners
        .to(notice.connection_id, notice.event_type)
        .map(|listener| NewEvent::of_notice(notice, listener.webhook_id))
        .collect();
    event::insert_new(conn, &events).await
}

/// Something that happened to a webhook, told to the client's others.
#[derive(Debug, Clone)]
pub struct WebhookNotice {
    pub client_id: i32,
    /// The one that it is about, which is not told.
    pub webhook_id: Uuid,
    pub phone_number: String,
    pub event_type: EventType,
    /// As a [`Notice`]'s.
    pub source_id: Uuid,
    /// A JSON object in its written form.
    pub metadata: String,
    pub at: DateTime<Utc>,
}

/// Adds the notice's events within the caller's transaction; returns the new ones' ids.
pub async fn announce_webhook(
    conn: &mut AsyncPgConnection,
    notice: &WebhookNotice,
) -> QueryResult<Vec<Uuid>> {
    let others = webhook::others(conn, notice.client_id, notice.webhook_id).await?;
    let events: Vec<NewEvent<'_>> = others
        .iter()
        .filter(|(_, event_types)| webhook::any_covers(event_types, notice.event_type))
        .map(|(other, _)| NewEvent::of_webhook_notice(notice, *other))
        .collect();
    event::insert_new(conn, &events).await
}

/// The active webhooks, by the connection whose number and client are theirs.
struct Listeners(HashMap<Uuid, Vec<Listener>>);

impl Listeners {
    fn of(rows: Vec<Listener>) -> Self {
        let mut map: HashMap<Uuid, Vec<Listener>> = HashMap::new();
        for listener in rows {
            map.entry(listener.connection_id)
                .or_default()
                .push(listener);
        }
        Self(map)
    }

    /// What messages become, in their order.
    fn events<'a>(&self, messages: &[&'a NewMessage]) -> Vec<NewEvent<'a>> {
        messages
            .iter()
            .flat_map(|message| {
                self.to(message.connection_id, message.event_type)
                    .map(|listener| NewEvent::of_message(message, listener))
            })
            .collect()
    }

    fn to(&self, connection: Uuid, event: EventType) -> impl Iterator<Item = &Listener> {
        self.0
            .get(&connection)
            .into_iter()
            .flatten()
            .filter(move |listener| listener.hears(event))
    }
}

impl<'a> NewEvent<'a> {
    fn of_message(message: &'a NewMessage, listener: &Listener) -> Self {
        let webhook_id = listener.webhook_id;
        Self {
            id: ids::event(message.event_type, message.id, webhook_id),
            client_id: message.client_id,
            webhook_id,
            connection_id: Some(message.connection_id),
            order_key: listener.ordered.then_some(&message.chat),
            source_id: message.id,
            message_stored: message.event_type != EventType::MessageReceipt,
            event_type: message.event_type,
            message_id: &message.message_id,
            chat: &message.chat,
            from: &message.from,
            to: &message.to,
            message_type: &message.message_type,
            content: &message.content,
            metadata: &message.metadata,
            timestamp: message.timestamp,
        }
    }

    fn of_notice(notice: &'a Notice, webhook_id: Uuid) -> Self {
        Self {
            id: ids::event(notice.event_type, notice.source_id, webhook_id),
            client_id: notice.client_id,
            webhook_id,
            connection_id: Some(notice.connection_id),
            order_key: None,
            source_id: notice.source_id,
            message_stored: false,
            event_type: notice.event_type,
            message_id: "",
            chat: "",
            from: "",
            to: &notice.phone_number,
            message_type: notice.event_type.as_str(),
            content: "",
            metadata: &notice.metadata,
            timestamp: notice.at,
        }
    }
    fn of_webhook_notice(notice: &'a WebhookNotice, webhook_id: Uuid) -> Self {
        Self {
            id: ids::event(notice.event_type, notice.source_id, webhook_id),
            client_id: notice.client_id,
            webhook_id,
            connection_id: None,
            order_key: None,
            source_id: notice.source_id,
            message_stored: false,
            event_type: notice.event_type,
            message_id: "",
            chat: "",
            from: "",
            to: &notice.phone_number,
            message_type: notice.event_type.as_str(),
            content: "",
            metadata: &notice.metadata,
            timestamp: notice.at,
        }
    }
}
