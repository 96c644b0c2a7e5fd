//! Dead letters: events that were given up, to be looked at, delivered again or deleted.

use actix_web::CustomizeResponder;
use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use domain::dead_letter::DeadLetter;
use domain::replay::{Deletion, Letters};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::replays::{Counted, accepted, span, to_the_end};
use super::webhooks;
use crate::auth::Caller;
use crate::cursor::{DeadLetterCursor, TimeCursor, cursor, next_cursor};
use crate::error::{ApiError, Problem};
use crate::extract::{Id, IdempotencyKey, OptionalBody, Query, parsed_option};
use crate::openapi::{answers, values};
use crate::page::Limit;
use crate::state::State;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// How many, at most.
    #[serde(default)]
    #[param(value_type = Limit, required = false, inline)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    #[serde(default, deserialize_with = "parsed_option")]
    #[param(schema_with = cursor, required = false)]
    cursor: Option<DeadLetterCursor>,
}

#[derive(Deserialize, Default, ToSchema)]
#[schema(as = ReplayDeadLetters)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct Replay {
    /// From then on.
    since: Option<DateTime<Utc>>,
    /// Before then; later than `since`.
    until: Option<DateTime<Utc>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
struct DeadLetterBody {
    event_id: Uuid,
    webhook_id: Uuid,
    #[schema(schema_with = values::event_type)]
    event_type: String,
    message_id: String,
    from: String,
    to: String,
    message_type: String,
    content: String,
    #[schema(value_type = Object)]
    metadata: Value,
    timestamp: DateTime<Utc>,
    attempt_count: i32,
    /// Of the last attempt.
    #[schema(required = true)]
    http_status: Option<i32>,
    #[schema(required = true)]
    error: Option<String>,
    #[schema(required = true)]
    response: Option<String>,
    reason: String,
    created_at: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetters)]
pub(crate) struct Many {
    #[schema(schema_with = values::success)]
    status: &'static str,
    count: usize,
    dead_letters: Vec<DeadLetterBody>,
    #[schema(required = true, schema_with = next_cursor)]
    next_cursor: Option<DeadLetterCursor>,
}

/// List a webhook's dead letters
///
/// Events that were given up, newest first. They are kept longer than events are.
#[utoipa::path(
    get,
    path = "/api/webhooks/{id}/dead-letters",
    operation_id = "list_dead_letters",
    tag = "Events",
    params(("id" = Uuid, Path, description = "The webhook's."), Page),
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
    Query(page): Query<Page>,
) -> Result<Json<Many>, ApiError> {
    let (limit, after) = (
        page.limit.and_one_more(),
        page.cursor.map(|cursor| cursor.0),
    );
    let mut conn = state.connection().await?;
    let webhook = webhooks::find(&mut conn, client.id, webhook_id).await?;
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

/// Deliver a webhook's dead letters again
///
/// By the time at which they became dead letters. The answer comes when all of them are requeued.
#[utoipa::path(
    post,
    path = "/api/webhooks/{id}/dead-letters/replay",
    operation_id = "replay_dead_letters",
    tag = "Events",
    params(("id" = Uuid, Path, description = "The webhook's."), IdempotencyKey),
    request_body(content = Option<Replay>, example = json!({"since": "2026-11-23T00:00:00Z", "until": "2026-11-24T00:00:00Z"})),
    security(("bearer" = ["write"])),
    responses(
        answers::Once,
        (status = 202, description = "So many are requeued.", body = Counted),
        (status = 409, description = "The webhook is not active, or the first request under the key is still under way.", body = Problem, content_type = "application/problem+json"),
        answers::Missing,
        answers::Body,
        answers::Caller,
    )
)]
pub(crate) async fn replay(
    state: Data<State>,
    Caller(client): Caller,
    Id(webhook_id): Id,
    OptionalBody(request): OptionalBody<Replay>,
) -> Result<CustomizeResponder<Json<Counted>>, ApiError> {
    let span = span(request.since, request.until)?;
    let mut letters = {
        let mut conn = state.connection().await?;
        let webhook = webhooks::find_active(&mut conn, client.id, webhook_id).await?;
        Letters::begin(&mut conn, client.id, webhook.id, span).await?
    };
    accepted(to_the_end(state, async move |conn| letters.step(conn).await).await?)
}

/// Delete a webhook's dead letters
///
/// All of them.
#[utoipa::path(
    delete,
    path = "/api/webhooks/{id}/dead-letters",
    operation_id = "delete_dead_letters",
    tag = "Events",
    params(("id" = Uuid, Path, description = "The webhook's.")),
    security(("bearer" = ["write"])),
    responses(
        (status = 200, description = "So many are deleted.", body = Counted),
        answers::Missing,
        answers::Caller,
    )
)]
pub(crate) async fn remove(
    state: Data<State>,
    Caller(client): Caller,
    Id(webhook_id): Id,
) -> Result<Json<Counted>, ApiError> {
    let mut deletion = {
        let mut conn = state.connection().await?;
        let webhook = webhooks::find(&mut conn, client.id, webhook_id).await?;
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
