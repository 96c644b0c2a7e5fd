//! Trying a webhook out: a sample event, sent by the dispatcher as any other.

use actix_web::HttpResponse;
use actix_web::web::Data;
use domain::attempt::Attempt;
use domain::event_type::EventType;
use domain::sample::{self, Sample};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::webhooks::{NO_WEBHOOK, not_active};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Id, OptionalBody, parsed_option};
use crate::state::State;
use crate::wait;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct Send {
    #[serde(rename = "type", default, deserialize_with = "parsed_option")]
    event_type: Option<EventType>,
}

#[derive(Serialize)]
struct Sent {
    status: &'static str,
    event_id: Uuid,
    delivered: bool,
    /// What the receiver answered, if it did.
    http_status: Option<i32>,
    latency_ms: i32,
    error: Option<String>,
}

#[derive(Serialize)]
struct Pending {
    status: &'static str,
    event_id: Uuid,
}

/// Sends a sample and waits for what comes of its first attempt.
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
