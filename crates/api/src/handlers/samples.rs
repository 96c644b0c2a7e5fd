//! Trying a webhook out: a sample event, sent by the dispatcher as any other.

use actix_web::HttpResponse;
use actix_web::web::Data;
use domain::attempt::Attempt;
use domain::event_type::EventType;
use domain::sample::{self, Sample};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use uuid::Uuid;

use super::webhooks::{NO_WEBHOOK, not_active};
use crate::auth::Caller;
use crate::error::{ApiError, Problem};
use crate::extract::{Id, IdempotencyKey, OptionalBody, parsed_option};
use crate::openapi::{answers, schema, values};
use crate::state::State;
use crate::wait;

#[derive(Deserialize, Default, ToSchema)]
#[schema(as = Test)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct Send {
    /// Of which event the sample is to be one; `test` if nothing is said.
    #[serde(rename = "type", default, deserialize_with = "parsed_option")]
    #[schema(schema_with = values::event_type_or_null, required = false)]
    event_type: Option<EventType>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Tested)]
pub(crate) struct Sent {
    #[schema(schema_with = values::success)]
    status: &'static str,
    event_id: Uuid,
    delivered: bool,
    /// What the receiver answered, if it did.
    #[schema(required = true)]
    http_status: Option<i32>,
    /// Of the whole attempt.
    latency_ms: i32,
    #[schema(required = true)]
    error: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TestPending)]
pub(crate) struct Pending {
    #[schema(schema_with = pending)]
    status: &'static str,
    event_id: Uuid,
}

/// Try a webhook out
///
/// Sends a sample event, which goes the way of every other, whatever events the webhook wants, and waits for what comes
/// of the first attempt.
#[utoipa::path(
    post,
    path = "/api/webhooks/{id}/test",
    operation_id = "test_webhook",
    tag = "Webhooks",
    params(("id" = Uuid, Path, description = "The webhook's."), IdempotencyKey),
    request_body(content = Option<Send>, example = json!({"type": "message"})),
    security(("bearer" = ["write"])),
    responses(
        answers::Once,
        (status = 200, description = "What the receiver made of it.", body = Sent),
        (status = 202, description = "There is no result yet: look at the event.", body = Pending),
        (status = 409, description = "The webhook is not active, or the first request under the key is still under way.", body = Problem, content_type = "application/problem+json"),
        answers::Missing,
        answers::Body,
        answers::Caller,
    )
)]
pub(crate) async fn send(
    state: Data<State>,
    Caller(client): Caller,
    Id(webhook_id): Id,
    OptionalBody(request): OptionalBody<Send>,
) -> Result<HttpResponse, ApiError> {
    let event_type = request.event_type.unwrap_or(EventType::Test);
    let inserted = {
        let mut conn = state.connection().await?;
        sample::insert(&mut conn, client.id, webhook_id, event_type).await?
    };
    let event_id = match inserted {
        Sample::Inserted(id) => id,
        Sample::NotFound => return Err(ApiError::not_found(NO_WEBHOOK)),
        Sample::NoReceiver => return Err(not_active()),
    };
    state.ring_event(event_id).await;
    let first = wait::until(state.attempt_wait, async || {
        let mut conn = state.connection().await?;
        let attempts = Attempt::list(&mut conn, client.id, event_id).await?;
        Ok(attempts.into_iter().next())
    });
    Ok(match first.await? {
        Some(attempt) => HttpResponse::Ok().json(Sent {
            status: "success",
            event_id,
            delivered: attempt.error_class.is_none(),
            http_status: attempt.http_status,
            latency_ms: attempt.duration_ms,
            error: attempt.error,
        }),
        None => HttpResponse::Accepted().json(Pending {
            status: "pending",
            event_id,
        }),
    })
}

fn pending() -> RefOr<Schema> {
    schema::one_of(&["pending"])
}
