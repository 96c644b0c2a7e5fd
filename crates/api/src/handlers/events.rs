//! Events: the ledger of what was sent where, and trying again.

use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use domain::attempt::Attempt;
use domain::event::{self, Event, Requeue, TOTAL_CAP};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::webhooks;
use crate::auth::Caller;
use crate::cursor::EventCursor;
use crate::error::{ApiError, Kind};
use crate::extract::{Id, Query, parsed_option};
use crate::page::Limit;
use crate::state::State;

const NO_EVENT: &str = "event of that id";

/// By offset up to the total that is counted; by cursor as far as there is something.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default)]
    limit: Limit,
    offset: Option<i64>,
    #[serde(default, deserialize_with = "parsed_option")]
    cursor: Option<EventCursor>,
}

#[derive(Serialize)]
pub(crate) struct EventBody {
    id: Uuid,
    webhook_id: Uuid,
    event_type: String,
    message_id: String,
    from: String,
    to: String,
    message_type: String,
    content: String,
    status: String,
    attempt_count: i32,
    http_status: Option<i32>,
    error: Option<String>,
    response: Option<String>,
    next_retry_at: Option<DateTime<Utc>>,
    /// Why a pending event has no `next_retry_at`.
    parked: Option<String>,
    created_at: DateTime<Utc>,
    delivered_at: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
pub(crate) struct Many {
    status: &'static str,
    total: i64,
    total_is_capped: bool,
    count: usize,
    events: Vec<EventBody>,
    next_cursor: Option<EventCursor>,
}

#[derive(Serialize)]
pub(crate) struct One {
    status: &'static str,
    event: Detailed,
}

#[derive(Serialize)]
pub(crate) struct Detailed {
    #[serde(flatten)]
    event: EventBody,
    payload: Value,
    attempts: Vec<Attempt>,
}

#[derive(Serialize)]
pub(crate) struct Requeued {
    status: &'static str,
    message: &'static str,
    event: RequeuedEvent,
}

#[derive(Serialize)]
struct RequeuedEvent {
    id: Uuid,
    status: &'static str,
    attempt_count: i32,
}

pub(crate) async fn list(
    state: Data<State>,
    Caller(client): Caller,
    Id(webhook_id): Id,
    Query(page): Query<Page>,
) -> Result<Json<Many>, ApiError> {
    let wanted = page.wanted()?;
    let webhook = webhooks::find(&state, client.id, webhook_id).await?;
    let mut conn = state.connection().await?;
    let total = Event::count(&mut conn, client.id, webhook.id).await?;
    let mut events = Event::list(&mut conn, client.id, webhook.id, wanted).await?;
    let goes_on = page.limit.cut(&mut events);
    let last = events.last().map(|last| last.sequence);
    Ok(Json(Many {
        status: "success",
        total,
        total_is_capped: total == TOTAL_CAP,
        count: events.len(),
        next_cursor: last.filter(|_| goes_on).map(EventCursor),
        events: events.into_iter().map(EventBody::from).collect(),
    }))
}

pub(crate) async fn show(
    state: Data<State>,
    Caller(client): Caller,
    Id(id): Id,
) -> Result<Json<One>, ApiError> {
    let mut conn = state.connection().await?;
    let event = Event::find(&mut conn, client.id, id).await?;
    let event = event.ok_or_else(|| ApiError::not_found(NO_EVENT))?;
    let attempts = Attempt::list(&mut conn, client.id, id).await?;
    Ok(Json(One {
        status: "success",
        event: Detailed {
            payload: event.payload()?,
            event: event.into(),
            attempts,
        },
    }))
}

pub(crate) async fn retry(
    state: Data<State>,
    Caller(client): Caller,
    Id(id): Id,
) -> Result<Json<Requeued>, ApiError> {
    let requeued = {
        let mut conn = state.connection().await?;
        Event::requeue(&mut conn, client.id, id).await?
    };
    match requeued {
        Requeue::Requeued => state.ring_event(id).await,
        Requeue::NotFound => return Err(ApiError::not_found(NO_EVENT)),
        Requeue::NoReceiver => {
            let detail = "The webhook of this event was deleted, or is not active.";
            return Err(ApiError::conflict(Kind::NoReceiver, detail));
        }
    }
    Ok(Json(Requeued {
        status: "success",
        message: "Event requeued for delivery",
        event: RequeuedEvent {
            id,
            status: "pending",
            attempt_count: 0,
        },
    }))
}

impl Page {
    fn wanted(&self) -> Result<event::Page, ApiError> {
        let offset = self.offset.unwrap_or(0);
        if self.offset.is_some() && self.cursor.is_some() {
            return Err(ApiError::field("offset", "cannot be combined with cursor"));
        }
        if !(0..=TOTAL_CAP).contains(&offset) {
            let detail = format!("must be from 0 to {TOTAL_CAP}; beyond that, use cursor");
            return Err(ApiError::field("offset", detail));
        }
        Ok(event::Page {
            limit: self.limit.and_one_more(),
            offset,
            before: self.cursor.map(|cursor| cursor.0),
        })
    }
}

impl From<Event> for EventBody {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            webhook_id: event.webhook_id,
            event_type: event.event_type,
            message_id: event.message_id,
            from: event.from,
            to: event.to,
            message_type: event.message_type,
            content: event.content,
            status: event.status,
            attempt_count: event.attempt_count,
            http_status: event.http_status,
            error: event.error,
            response: event.response,
            next_retry_at: event.next_retry_at,
            parked: event.parked,
            created_at: event.created_at,
            delivered_at: event.delivered_at,
        }
    }
}
