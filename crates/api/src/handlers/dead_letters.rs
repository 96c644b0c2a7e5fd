//! Dead letters: events that were given up, to be looked at, delivered again or deleted.

use actix_web::CustomizeResponder;
use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use domain::dead_letter::DeadLetter;
use domain::replay::{Deletion, Letters};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::replays::{Counted, accepted, span, to_the_end};
use super::webhooks;
use crate::auth::Caller;
use crate::cursor::{DeadLetterCursor, TimeCursor};
use crate::error::ApiError;
use crate::extract::{Id, OptionalBody, Query, parsed_option};
use crate::page::Limit;
use crate::state::State;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default)]
    limit: Limit,
    #[serde(default, deserialize_with = "parsed_option")]
    cursor: Option<DeadLetterCursor>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct Replay {
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
struct DeadLetterBody {
    event_id: Uuid,
    webhook_id: Uuid,
    event_type: String,
    message_id: String,
    from: String,
    to: String,
    message_type: String,
    content: String,
    metadata: Value,
    timestamp: DateTime<Utc>,
    attempt_count: i32,
    /// Of the last attempt.
    http_status: Option<i32>,
    error: Option<String>,
    response: Option<String>,
    reason: String,
    created_at: DateTime<Utc>,
}

#[derive(Serialize)]
pub(crate) struct Many {
    status: &'static str,
    count: usize,
    dead_letters: Vec<DeadLetterBody>,
    next_cursor: Option<DeadLetterCursor>,
}

pub(crate) async fn list(
    state: Data<State>,
    Caller(client): Caller,
    Id(webhook_id): Id,
    Query(page): Query<Page>,
) -> Result<Json<Many>, ApiError> {
    let webhook = webhooks::find(&state, client.id, webhook_id).await?;
    let (limit, after) = (
        page.limit.and_one_more(),
        page.cursor.map(|cursor| cursor.0),
    );
    let mut conn = state.connection().await?;
    let mut letters = DeadLetter::list(&mut conn, client.id, webhook.id, limit, after).await?;
    let goes_on = page.limit.cut(&mut letters);
    let last = letters.last().map(|last| (last.created_at, last.event_id));
    Ok(Json(Many {
        status: "success",
        count: letters.len(),
        next_cursor: last.filter(|_| goes_on).map(TimeCursor),
        dead_letters: letters.into_iter().map(DeadLetterBody::from).collect(),
    }))
}

pub(crate) async fn replay(
    state: Data<State>,
    Caller(client): Caller,
    Id(webhook_id): Id,
    OptionalBody(request): OptionalBody<Replay>,
) -> Result<CustomizeResponder<Json<Counted>>, ApiError> {
    let span = span(request.since, request.until)?;
    let webhook = webhooks::find_active(&state, client.id, webhook_id).await?;
    let mut letters = {
        let mut conn = state.connection().await?;
        Letters::begin(&mut conn, client.id, webhook.id, span).await?
    };
    accepted(to_the_end(state, async move |conn| letters.step(conn).await).await?)
}

pub(crate) async fn remove(
    state: Data<State>,
    Caller(client): Caller,
    Id(webhook_id): Id,
) -> Result<Json<Counted>, ApiError> {
    let webhook = webhooks::find(&state, client.id, webhook_id).await?;
    let mut deletion = {
        let mut conn = state.connection().await?;
        Deletion::begin(&mut conn, client.id, webhook.id).await?
    };
    let count = to_the_end(state, async move |conn| deletion.step(conn).await).await?;
    Ok(Json(Counted::new(count.unwrap_or(0))))
}

impl From<DeadLetter> for DeadLetterBody {
    fn from(letter: DeadLetter) -> Self {
        Self {
            event_id: letter.event_id,
            webhook_id: letter.webhook_id,
            event_type: letter.event_type,
            message_id: letter.message_id,
            from: letter.from,
            to: letter.to,
            message_type: letter.message_type,
            content: letter.content,
            metadata: letter.metadata,
            timestamp: letter.timestamp,
            attempt_count: letter.attempt_count,
            http_status: letter.http_status,
            error: letter.error,
            response: letter.response,
            reason: letter.reason,
            created_at: letter.created_at,
        }
    }
}
