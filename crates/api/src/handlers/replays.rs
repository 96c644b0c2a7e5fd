//! Delivering again what is settled already. The answer comes when all of it is requeued, which a million
//! events take a while; it goes on also when nobody waits for the answer any more.

use actix_web::http::StatusCode;
use actix_web::rt::spawn;
use actix_web::web::{Data, Json};
use actix_web::{CustomizeResponder, Responder};
use chrono::{DateTime, Utc};
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use domain::replay::{Events, PAUSE, Settled, Step};
use domain::span::Span;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use super::webhooks;
use crate::auth::Caller;
use crate::error::{ApiError, Problem};
use crate::extract::{Id, IdempotencyKey, OptionalBody, parsed_option};
use crate::openapi::{answers, schema, values};
use crate::state::State;

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct Replay {
    /// `failed` if nothing is said.
    #[serde(default, deserialize_with = "parsed_option")]
    #[schema(schema_with = settled, required = false)]
    status: Option<Settled>,
    /// From then on.
    since: Option<DateTime<Utc>>,
    /// Before then; later than `since`.
    until: Option<DateTime<Utc>>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Counted {
    #[schema(schema_with = values::success)]
    status: &'static str,
    count: usize,
}

/// Deliver a webhook's events again
///
/// Those that are settled, by their status and the time of their commit. What is pending is on its way anyway. The answer
/// comes when all of them are requeued.
#[utoipa::path(
    post,
    path = "/api/webhooks/{id}/replay",
    operation_id = "replay_events",
    tag = "Events",
    params(("id" = Uuid, Path, description = "The webhook's."), IdempotencyKey),
    request_body(content = Option<Replay>, example = json!({"status": "failed", "since": "2026-11-23T00:00:00Z"})),
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
    let settled = request.status.unwrap_or(Settled::Failed);
    let mut events = {
        let mut conn = state.connection().await?;
        let webhook = webhooks::find_active(&mut conn, client.id, webhook_id).await?;
        Events::begin(&mut conn, client.id, webhook.id, settled, span).await?
    };
    accepted(to_the_end(state, async move |conn| events.step(conn).await).await?)
}

pub(super) fn accepted(
    count: Option<usize>,
) -> Result<CustomizeResponder<Json<Counted>>, ApiError> {
    let counted = Counted::new(count.ok_or_else(webhooks::not_active)?);
    Ok(Json(counted).customize().with_status(StatusCode::ACCEPTED))
}

/// Takes step after step, each on a connection of its own, whoever still waits for it. Returns how many
/// were done in all; `None` when it was none since the webhook takes nothing.
pub(super) async fn to_the_end(
    state: Data<State>,
    mut step: impl AsyncFnMut(&mut AsyncPgConnection) -> QueryResult<Step> + 'static,
) -> Result<Option<usize>, ApiError> {
    let steps = spawn(async move {
        let mut total = 0;
        loop {
            let taken = {
                let mut conn = state.connection().await?;
                step(&mut conn).await?
            };
            match taken {
                Step::Done(count) => total += count,
                Step::Held(count) => {
                    total += count;
                    tokio::time::sleep(PAUSE).await;
                }
                Step::End => return Ok(Some(total)),
                Step::NoReceiver => return Ok(Some(total).filter(|total| *total > 0)),
            }
        }
    });
    steps.await.unwrap_or_else(|_| Err(ApiError::interrupted()))
}

/// Both ends of a span of time are optional.
pub(super) fn span(
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
) -> Result<Span, ApiError> {
    Span::new(since, until).ok_or_else(|| ApiError::field("until", "must be later than since"))
}

impl Counted {
    pub(super) fn new(count: usize) -> Self {
        Self {
            status: "success",
            count,
        }
    }
}

fn settled() -> RefOr<Schema> {
    schema::one_of_or_null(&["failed", "delivered", "all"])
}
