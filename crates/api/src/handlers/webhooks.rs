//! Webhooks: registered by number, listed, changed, deleted.

use actix_web::HttpResponse;
use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use domain::phone::Phone;
use domain::token;
use domain::webhook::{self, Changes, Webhook};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::address::WebhookUrl;
use crate::auth::Caller;
use crate::cursor::WebhookCursor;
use crate::error::ApiError;
use crate::extract::{Body, Id, Query, parsed, parsed_option};
use crate::options::{EventTypes, MaxRetries, Metadata};
use crate::page::Limit;
use crate::state::State;

pub(super) const NO_WEBHOOK: &str = "webhook of that id";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct Register {
    #[serde(deserialize_with = "parsed")]
    phone_number: Phone,
    webhook_url: WebhookUrl,
    max_retries: Option<MaxRetries>,
    event_types: Option<EventTypes>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct Update {
    webhook_url: Option<WebhookUrl>,
    is_active: Option<bool>,
    max_retries: Option<MaxRetries>,
    event_types: Option<EventTypes>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default)]
    limit: Limit,
    #[serde(default, deserialize_with = "parsed_option")]
    cursor: Option<WebhookCursor>,
}

/// A webhook as its client sees it: without its secrets.
#[derive(Serialize)]
pub(crate) struct WebhookBody {
    id: Uuid,
    client_id: i32,
    phone_number: String,
    webhook_url: String,
    is_active: bool,
    status: String,
    failure_count: i32,
    max_retries: i32,
    last_error: Option<String>,
    last_success_at: Option<DateTime<Utc>>,
    last_attempt_at: Option<DateTime<Utc>>,
    event_types: Vec<String>,
    metadata: Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Serialize)]
pub(crate) struct One {
    status: &'static str,
    webhook: WebhookBody,
    /// In the answer that made it, and nowhere else but where it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Many {
    status: &'static str,
    count: usize,
    webhooks: Vec<WebhookBody>,
    next_cursor: Option<WebhookCursor>,
}

#[derive(Serialize)]
pub(crate) struct Removed {
    status: &'static str,
    message: &'static str,
}

pub(crate) async fn register(
    state: Data<State>,
    Caller(client): Caller,
    Body(request): Body<Register>,
) -> Result<HttpResponse, ApiError> {
    let changes = Changes {
        webhook_url: Some(request.webhook_url.permitted(&state.receivers).await?),
        is_active: None,
        max_retries: request.max_retries.map(|retries| retries.0),
        event_types: request.event_types.map(|types| types.0),
        metadata: request.metadata.map(|metadata| metadata.0),
    };
    let (id, secret) = (Uuid::now_v7(), token::new_signing_secret());
    let sealed = webhook::seal_secret(&state.keyring, id, &secret);
    let mut conn = state.connection().await?;
    let phone = &request.phone_number;
    let (webhook, is_new) =
        Webhook::register(&mut conn, client.id, id, phone, &changes, &sealed).await?;
    let mut answer = match is_new {
        true => HttpResponse::Created(),
        false => HttpResponse::Ok(),
    };
    Ok(answer.json(One {
        secret: is_new.then(|| secret.expose_secret().to_owned()),
        ..One::of(webhook)
    }))
}

pub(crate) async fn list(
    state: Data<State>,
    Caller(client): Caller,
    Query(page): Query<Page>,
) -> Result<Json<Many>, ApiError> {
    let after = page.cursor.map(|cursor| cursor.0);
    let mut conn = state.connection().await?;
    let mut webhooks =
        Webhook::list(&mut conn, client.id, page.limit.and_one_more(), after).await?;
    let goes_on = page.limit.cut(&mut webhooks);
    let last = webhooks.last().map(|last| (last.created_at, last.id));
    Ok(Json(Many {
        status: "success",
        count: webhooks.len(),
        next_cursor: last.filter(|_| goes_on).map(WebhookCursor),
        webhooks: webhooks.into_iter().map(WebhookBody::from).collect(),
    }))
}

pub(crate) async fn show(
    state: Data<State>,
    Caller(client): Caller,
    Id(id): Id,
) -> Result<Json<One>, ApiError> {
    find(&state, client.id, id).await.map(One::of).map(Json)
}

pub(crate) async fn update(
    state: Data<State>,
    Caller(client): Caller,
    Id(id): Id,
    Body(request): Body<Update>,
) -> Result<Json<One>, ApiError> {
    let webhook_url = match request.webhook_url {
        Some(url) => Some(url.permitted(&state.receivers).await?),
        None => None,
    };
    let changes = Changes {
        webhook_url,
        is_active: request.is_active,
        max_retries: request.max_retries.map(|retries| retries.0),
        event_types: request.event_types.map(|types| types.0),
        metadata: request.metadata.map(|metadata| metadata.0),
    };
    let mut conn = state.connection().await?;
    let updated = Webhook::update(&mut conn, client.id, id, &changes).await?;
    let webhook = updated.ok_or_else(|| ApiError::not_found(NO_WEBHOOK))?;
    Ok(Json(One::of(webhook)))
}

pub(crate) async fn remove(
    state: Data<State>,
    Caller(client): Caller,
    Id(id): Id,
) -> Result<Json<Removed>, ApiError> {
    let mut conn = state.connection().await?;
    match Webhook::delete(&mut conn, client.id, id).await? {
        true => Ok(Json(Removed {
            status: "success",
            message: "Webhook deleted successfully",
        })),
        false => Err(ApiError::not_found(NO_WEBHOOK)),
    }
}

/// The client's webhook of that id.
pub(super) async fn find(state: &State, client_id: i32, id: Uuid) -> Result<Webhook, ApiError> {
    let mut conn = state.connection().await?;
    let found = Webhook::find(&mut conn, client_id, id).await?;
    found.ok_or_else(|| ApiError::not_found(NO_WEBHOOK))
}

impl One {
    fn of(webhook: Webhook) -> Self {
        Self {
            status: "success",
            webhook: webhook.into(),
            secret: None,
        }
    }
}

impl From<Webhook> for WebhookBody {
    fn from(webhook: Webhook) -> Self {
        Self {
            id: webhook.id,
            client_id: webhook.client_id,
            phone_number: webhook.phone_number,
            webhook_url: webhook.webhook_url,
            is_active: webhook.is_active,
            status: webhook.status,
            failure_count: webhook.failure_count,
            max_retries: webhook.max_retries,
            last_error: webhook.last_error,
            last_success_at: webhook.last_success_at,
            last_attempt_at: webhook.last_attempt_at,
            event_types: webhook.event_types,
            metadata: webhook.metadata,
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
        }
    }
}
