//! Webhooks: registered by number, listed, changed, deleted.

mod body;

use actix_web::HttpResponse;
use actix_web::web::{Data, Json};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use domain::phone::Phone;
use domain::token;
use domain::webhook::{self, Changes, Webhook};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use self::body::WebhookBody;
use crate::address::{self, OutsideUrl};
use crate::auth::Caller;
use crate::cursor::{TimeCursor, WebhookCursor, cursor, next_cursor};
use crate::error::{ApiError, Kind};
use crate::extract::{Body, Id, IdempotencyKey, Query, parsed, parsed_option};
use crate::openapi::{answers, values};
use crate::options::{CustomHeaders, IpRanges, given, with_options};
use crate::page::Limit;
use crate::state::State;

pub(super) const NO_WEBHOOK: &str = "webhook of that id";

with_options! {
    struct Register {
        /// The number whose events it gets.
        #[serde(deserialize_with = "parsed")]
        #[schema(value_type = values::PhoneNumber)]
        phone_number: Phone,
        /// Where its events are posted to.
        webhook_url: OutsideUrl,
    }
}

with_options! {
    struct Update {
        /// Where its events are posted to.
        #[serde(default, deserialize_with = "given")]
        #[schema(value_type = OutsideUrl, required = false)]
        webhook_url: Option<OutsideUrl>,
        /// One that is not active gets nothing.
        #[serde(default, deserialize_with = "given")]
        #[schema(value_type = bool, required = false)]
        is_active: Option<bool>,
    }
}

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
    cursor: Option<WebhookCursor>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = WebhookAnswer)]
pub(crate) struct One {
    #[schema(schema_with = values::success)]
    status: &'static str,
    webhook: WebhookBody,
    /// In the answer that made it, and nowhere else but where it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Webhooks)]
pub(crate) struct Many {
    #[schema(schema_with = values::success)]
    status: &'static str,
    count: usize,
    webhooks: Vec<WebhookBody>,
    #[schema(required = true, schema_with = next_cursor)]
    next_cursor: Option<WebhookCursor>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Removed {
    #[schema(schema_with = values::success)]
    status: &'static str,
    #[schema(example = "Webhook deleted successfully")]
    message: &'static str,
}

/// Register a webhook for a number
///
/// A number has one webhook at most: to register it again updates it, sets it active again and forgets its failures. The
/// answer that made it has its `secret`, which can be asked for later too.
#[utoipa::path(
    post,
    path = "/api/webhooks/register",
    operation_id = "register_webhook",
    tag = "Webhooks",
    params(IdempotencyKey),
    request_body(content = Register, example = json!({
        "phone_number": "+55 11 98888-8888",
        "webhook_url": "https://example.com/recado",
        "max_retries": 10,
        "event_types": ["message", "message.reaction", "connection.*"],
        "batch": {"max_events": 100, "max_wait_ms": 1000},
    })),
    security(("bearer" = ["write"])),
    responses(
        answers::Once,
        (status = 201, description = "It is new.", body = One),
        (status = 200, description = "It was there, and is updated.", body = One),
        answers::Body,
        answers::Caller,
    )
)]
pub(crate) async fn register(
    state: Data<State>,
    Caller(client): Caller,
    Body(request): Body<Register>,
) -> Result<HttpResponse, ApiError> {
    let changes = request.changes();
    let blamed = blamed_for_address(request.allowed_ip_ranges.as_ref());
    let (phone, headers) = (request.phone_number, request.custom_headers);
    let changes = Changes {
        webhook_url: Some(
            request
                .webhook_url
                .permitted(&state.receivers, "webhook_url")
                .await?,
        ),
        ..changes
    };
    let (id, secret) = (Uuid::now_v7(), token::new_signing_secret());
    let sealed = webhook::seal_secret(&state.keyring, id, &secret);
    let mut conn = state.connection().await?;
    let registered = conn.transaction(async |conn| {
        let (mut webhook, is_new) =
            Webhook::register(conn, client.id, id, &phone, &changes, &sealed).await?;
        // They are sealed for their row, and which one that is shows only now.
        if let Some(headers) = &headers {
            let headers = Changes {
                custom_headers: Some(seal(&state, webhook.id, headers.as_ref())),
                ..Changes::default()
            };
            webhook = updated(conn, client.id, webhook.id, &headers).await?;
        }
        check_address(&webhook, blamed)?;
        Ok::<_, ApiError>((webhook, is_new))
    });
    let (webhook, is_new) = registered.await?;
    let mut answer = match is_new {
        true => HttpResponse::Created(),
        false => HttpResponse::Ok(),
    };
    Ok(answer.json(One {
        secret: is_new.then(|| secret.expose_secret().to_owned()),
        ..One::of(&state, webhook)?
    }))
}

/// List your webhooks
///
/// Newest first.
#[utoipa::path(
    get,
    path = "/api/webhooks/list",
    operation_id = "list_webhooks",
    tag = "Webhooks",
    params(Page),
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "A page of them.", body = Many),
        answers::Parameters,
        answers::Caller,
    )
)]
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
    let bodies = webhooks
        .into_iter()
        .map(|webhook| WebhookBody::of(&state.keyring, webhook));
    let webhooks = bodies.collect::<Result<Vec<_>, _>>()?;
    Ok(Json(Many {
        status: "success",
        count: webhooks.len(),
        next_cursor: last.filter(|_| goes_on).map(TimeCursor),
        webhooks,
    }))
}

/// Show a webhook
#[utoipa::path(
    get,
    path = "/api/webhooks/{id}",
    operation_id = "show_webhook",
    tag = "Webhooks",
    params(("id" = Uuid, Path, description = "The webhook's.")),
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "The webhook.", body = One),
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
    let webhook = find(&mut conn, client.id, id).await?;
    One::of(&state, webhook).map(Json)
}

/// Change a webhook
///
/// What is not in the request stays as it is; null takes away an option that it can be without.
#[utoipa::path(
    patch,
    path = "/api/webhooks/{id}",
    operation_id = "update_webhook",
    tag = "Webhooks",
    params(("id" = Uuid, Path, description = "The webhook's.")),
    request_body(content = Update, example = json!({
        "is_active": true,
        "rate_limit_per_second": 20,
        "batch": null,
        "custom_headers": {"X-Api-Key": "3f9c"},
    })),
    security(("bearer" = ["write"])),
    responses(
        (status = 200, description = "The webhook as it is now.", body = One),
        answers::Missing,
        answers::Body,
        answers::Caller,
    )
)]
pub(crate) async fn update(
    state: Data<State>,
    Caller(client): Caller,
    Id(id): Id,
    Body(request): Body<Update>,
) -> Result<Json<One>, ApiError> {
    let changes = request.changes();
    let blamed = blamed_for_address(request.allowed_ip_ranges.as_ref());
    let headers = request.custom_headers.as_ref();
    let changes = Changes {
        custom_headers: headers.map(|headers| seal(&state, id, headers.as_ref())),
        is_active: request.is_active,
        webhook_url: match request.webhook_url {
            Some(url) => Some(url.permitted(&state.receivers, "webhook_url").await?),
            None => None,
        },
        ..changes
    };
    let mut conn = state.connection().await?;
    let webhook = conn.transaction(async |conn| {
        let webhook = updated(conn, client.id, id, &changes).await?;
        check_address(&webhook, blamed)?;
        Ok::<_, ApiError>(webhook)
    });
    One::of(&state, webhook.await?).map(Json)
}

/// Delete a webhook
///
/// What was still to be delivered to it becomes dead letters.
#[utoipa::path(
    delete,
    path = "/api/webhooks/{id}",
    operation_id = "delete_webhook",
    tag = "Webhooks",
    params(("id" = Uuid, Path, description = "The webhook's.")),
    security(("bearer" = ["write"])),
    responses(
        (status = 200, description = "It is deleted.", body = Removed),
        answers::Missing,
        answers::Caller,
    )
)]
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
pub(super) async fn find(
    conn: &mut AsyncPgConnection,
    client_id: i32,
    id: Uuid,
) -> Result<Webhook, ApiError> {
    let found = Webhook::find(conn, client_id, id).await?;
    found.ok_or_else(|| ApiError::not_found(NO_WEBHOOK))
}

/// The same, if something can be sent to it.
pub(super) async fn find_active(
    conn: &mut AsyncPgConnection,
    client_id: i32,
    id: Uuid,
) -> Result<Webhook, ApiError> {
    let webhook = find(conn, client_id, id).await?;
    match webhook.is_active {
        true => Ok(webhook),
        false => Err(not_active()),
    }
}

async fn updated(
    conn: &mut AsyncPgConnection,
    client_id: i32,
    id: Uuid,
    changes: &Changes,
) -> Result<Webhook, ApiError> {
    let webhook = Webhook::update(conn, client_id, id, changes).await?;
    webhook.ok_or_else(|| ApiError::not_found(NO_WEBHOOK))
}

/// What stands in the row for these headers: nothing for none.
fn seal(state: &State, id: Uuid, headers: Option<&CustomHeaders>) -> Option<Vec<u8>> {
    let CustomHeaders(headers) = headers.filter(|headers| !headers.0.is_empty())?;
    Some(webhook::seal_headers(&state.keyring, id, headers))
}

/// The field to name when a webhook's address is none of those that it allows.
fn blamed_for_address(ranges: Option<&IpRanges>) -> &'static str {
    match ranges {
        Some(_) => "allowed_ip_ranges",
        None => "webhook_url",
    }
}

/// Refuses an address in the URL itself that no delivery could go to, by what the row will say: either
/// of the two may have been there before. What a name resolves to shows at each delivery.
fn check_address(webhook: &Webhook, blamed: &'static str) -> Result<(), ApiError> {
    let ranges = IpRanges::stored(&webhook.allowed_ip_ranges);
    match address::literal(&webhook.webhook_url).is_none_or(|ip| ranges.admit(ip)) {
        true => Ok(()),
        false => {
            let detail = "the address in webhook_url is in none of allowed_ip_ranges";
            Err(ApiError::field(blamed, detail))
        }
    }
}

/// Nothing can be sent to it as it is.
pub(super) fn not_active() -> ApiError {
    ApiError::conflict(Kind::NoReceiver, "The webhook is not active.")
}

impl One {
    fn of(state: &State, webhook: Webhook) -> Result<Self, ApiError> {
        Ok(Self {
            status: "success",
            webhook: WebhookBody::of(&state.keyring, webhook)?,
            secret: None,
        })
    }
}
