//! Events: the ledger of what was sent where, and trying again.

use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use domain::attempt::Attempt;
use domain::event::{Event, Filter, List, Range, Requeue, Status, TOTAL_CAP};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::replays::span;
use super::sending::checked;
use super::webhooks;
use crate::auth::Caller;
use crate::cursor::{self, EventCursor, cursor, next_cursor};
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{Id, IdempotencyKey, Query, parsed_option};
use crate::openapi::{answers, values};
use crate::page::Limit;
use crate::state::State;

/// What can be stored of one.
const LONGEST_MESSAGE_ID: usize = 512;
const NO_EVENT: &str = "event of that id";

/// Which events, and which page of them: by offset up to the total that is counted, by cursor as far as there is
/// something.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Those with this status now.
    #[serde(default, deserialize_with = "parsed_option")]
    #[param(schema_with = values::event_status, required = false)]
    status: Option<Status>,
    /// Those of the message with this id of WhatsApp's.
    #[param(required = false, nullable = false, min_length = 1)]
    message_id: Option<String>,
    /// Those that were committed from then on.
    #[param(required = false, nullable = false)]
    since: Option<DateTime<Utc>>,
    /// Those that were committed before then; later than `since`.
    #[param(required = false, nullable = false)]
    until: Option<DateTime<Utc>>,
    /// How many, at most.
    #[serde(default)]
    #[param(value_type = Limit, required = false, inline)]
    limit: Limit,
    /// How many to pass over. Not together with `cursor`.
    #[param(value_type = i64, required = false, minimum = 0, maximum = 10_000)]
    offset: Option<i64>,
    /// The `next_cursor` of the page before, of the same filters.
    #[serde(default, deserialize_with = "parsed_option")]
    #[param(schema_with = cursor, required = false)]
    cursor: Option<EventCursor>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventBody {
    id: Uuid,
    webhook_id: Uuid,
    #[schema(schema_with = values::event_type)]
    event_type: String,
    message_id: String,
    from: String,
    to: String,
    message_type: String,
    content: String,
    #[schema(schema_with = values::event_status)]
    status: String,
    attempt_count: i32,
    /// Of the last attempt, as `error` and `response` are.
    #[schema(required = true)]
    http_status: Option<i32>,
    #[schema(required = true)]
    error: Option<String>,
    #[schema(required = true)]
    response: Option<String>,
    #[schema(required = true)]
    next_retry_at: Option<DateTime<Utc>>,
    /// Why a pending event has no `next_retry_at`.
    #[schema(required = true, schema_with = values::parked)]
    parked: Option<String>,
    created_at: DateTime<Utc>,
    #[schema(required = true)]
    delivered_at: Option<DateTime<Utc>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Events)]
pub(crate) struct Many {
    #[schema(schema_with = values::success)]
    status: &'static str,
    /// How many the filters let through: by cursor, when the first page was asked for.
    #[schema(minimum = 0, maximum = 10_000)]
    total: i64,
    total_is_capped: bool,
    count: usize,
    events: Vec<EventBody>,
    #[schema(required = true, schema_with = next_cursor)]
    next_cursor: Option<EventCursor>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EventAnswer)]
pub(crate) struct One {
    #[schema(schema_with = values::success)]
    status: &'static str,
    event: Detailed,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DetailedEvent)]
pub(crate) struct Detailed {
    #[serde(flatten)]
    event: EventBody,
    /// What is sent.
    #[schema(schema_with = values::payload)]
    payload: Value,
    attempts: Vec<Attempt>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Requeued {
    #[schema(schema_with = values::success)]
    status: &'static str,
    #[schema(example = "Event requeued for delivery")]
    message: &'static str,
    event: RequeuedEvent,
}

#[derive(Serialize, ToSchema)]
struct RequeuedEvent {
    id: Uuid,
    #[schema(schema_with = values::event_status)]
    status: &'static str,
    attempt_count: i32,
}

/// List a webhook's events
///
/// Newest first, by the order of their commit. `total` counts to 10,000 and no further; by `cursor` a list goes on as far
/// as there is something, and the thousandth page costs what the first does. What is committed meanwhile moves no page.
#[utoipa::path(
    get,
    path = "/api/webhooks/{id}/events",
    operation_id = "list_events",
    tag = "Events",
    params(("id" = Uuid, Path, description = "The webhook's."), Wanted),
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "A page of them.", body = Many),
        answers::Missing,
        answers::Caller,
    )
)]
pub(crate) async fn list(
    state: Data<State>,
    Caller(client): Caller,
    Id(webhook_id): Id,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Many>, ApiError> {
    let offset = wanted.offset()?;
    let filter = wanted.filter()?;
    let mark = mark(webhook_id, &filter);
    let before = wanted.cursor;
    if before.is_some_and(|cursor| cursor.mark != mark) {
        return Err(ApiError::field("cursor", cursor::REFUSED));
    }
    let mut conn = state.connection().await?;
    let range = before.map(|cursor| cursor.range);
    let list = List::new(&mut conn, client.id, webhook_id, &filter, range).await?;
    let total = match before {
        Some(cursor) => cursor.total,
        None => list.count(&mut conn).await?,
    };
    let limit = wanted.limit.and_one_more();
    let mut events = list.page(&mut conn, limit, offset).await?;
    if events.is_empty() {
        // There may be none, or no such webhook.
        webhooks::find(&mut conn, client.id, webhook_id).await?;
    }
    let goes_on = wanted.limit.cut(&mut events);
    let next = events.last().filter(|_| goes_on).map(|last| EventCursor {
        range: Range {
            before: last.sequence,
            ..list.range()
        },
        total,
        mark,
    });
    Ok(Json(Many {
        status: "success",
        total,
        total_is_capped: total == TOTAL_CAP,
        count: events.len(),
        next_cursor: next,
        events: events.into_iter().map(EventBody::from).collect(),
    }))
}

/// Show an event
///
/// With what is sent for it, and every attempt.
#[utoipa::path(
    get,
    path = "/api/webhooks/events/{event_id}",
    operation_id = "show_event",
    tag = "Events",
    params(("event_id" = Uuid, Path, description = "The event's: the `webhook-id` of its deliveries.")),
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "The event.", body = One),
        answers::Missing,
        answers::Caller,
    )
)]
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

/// Deliver an event again
///
/// At once, and with all its attempts before it.
#[utoipa::path(
    post,
    path = "/api/webhooks/events/{event_id}/retry",
    operation_id = "retry_event",
    tag = "Events",
    params(("event_id" = Uuid, Path, description = "The event's."), IdempotencyKey),
    security(("bearer" = ["write"])),
    responses(
        answers::Once,
        (status = 200, description = "It is on its way.", body = Requeued),
        (status = 409, description = "Its webhook was deleted or is not active, or the first request under the key is still under way.", body = Problem, content_type = "application/problem+json"),
        answers::Missing,
        answers::Caller,
    )
)]
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

impl Wanted {
    fn offset(&self) -> Result<i64, ApiError> {
        let offset = self.offset.unwrap_or(0);
        if self.offset.is_some() && self.cursor.is_some() {
            return Err(ApiError::field("offset", "cannot be combined with cursor"));
        }
        if !(0..=TOTAL_CAP).contains(&offset) {
            let detail = format!("must be from 0 to {TOTAL_CAP}; beyond that, use cursor");
            return Err(ApiError::field("offset", detail));
        }
        Ok(offset)
    }

    fn filter(&self) -> Result<Filter, ApiError> {
        let message_id = self.message_id.as_deref();
        let message_id = message_id.map(|id| checked("message_id", id, LONGEST_MESSAGE_ID));
        Ok(Filter {
            status: self.status,
            message_id: message_id.transpose()?,
            span: span(self.since, self.until)?,
        })
    }
}

/// Differs for the lists of two webhooks, or of two filters.
fn mark(webhook: Uuid, filter: &Filter) -> [u8; 8] {
    let micros = |at: Option<DateTime<Utc>>| at.map(|at| at.timestamp_micros());
    let of = (
        webhook,
        filter.status.map(Status::as_str),
        &filter.message_id,
        micros(filter.span.since),
        micros(filter.span.until),
    );
    let digest: [u8; 32] = Sha256::digest(format!("{of:?}")).into();
    let [mark, ..] = digest.as_chunks().0 else {
        unreachable!()
    };
    *mark
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
