//! The secret that a webhook's deliveries are signed with.

use actix_web::web::{Data, Json};
use domain::token;
use domain::webhook::{self, Webhook};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::webhooks;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Id, IdempotencyKey, OptionalBody};
use crate::openapi::schema::schema;
use crate::openapi::{answers, values};
use crate::options::within;
use crate::state::State;

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct Rotate {
    /// How long both sign.
    overlap_seconds: Option<Overlap>,
}

/// How long both secrets sign, in seconds: a day, or up to 30.
#[derive(Clone, Copy)]
struct Overlap(i32);

const LONGEST_OVERLAP: i32 = 30 * 86_400;

#[derive(Serialize, ToSchema)]
pub(crate) struct Secret {
    #[schema(schema_with = values::success)]
    status: &'static str,
    #[schema(
        pattern = "^whsec_",
        example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    )]
    secret: String,
}

/// Show a webhook's secret
///
/// Its deliveries are signed with it, by Standard Webhooks.
#[utoipa::path(
    get,
    path = "/api/webhooks/{id}/secret",
    operation_id = "show_secret",
    tag = "Webhooks",
    params(("id" = Uuid, Path, description = "The webhook's.")),
    security(("bearer" = ["write"])),
    responses(
        (status = 200, description = "The secret.", body = Secret),
        answers::Missing,
        answers::Caller,
    )
)]
pub(crate) async fn show(
    state: Data<State>,
    Caller(client): Caller,
    Id(id): Id,
) -> Result<Json<Secret>, ApiError> {
    let webhook = {
        let mut conn = state.connection().await?;
        webhooks::find(&mut conn, client.id, id).await?
    };
    let secret = webhook::open_secret(&state.keyring, id, &webhook.secret)?;
    Ok(Json(Secret::of(&secret)))
}

/// Give a webhook a new secret
///
/// Deliveries are signed with the old one too for a while.
#[utoipa::path(
    post,
    path = "/api/webhooks/{id}/secret/rotate",
    operation_id = "rotate_secret",
    tag = "Webhooks",
    params(("id" = Uuid, Path, description = "The webhook's."), IdempotencyKey),
    request_body(content = Option<Rotate>, example = json!({"overlap_seconds": 3600})),
    security(("bearer" = ["write"])),
    responses(
        answers::Once,
        (status = 200, description = "The new secret.", body = Secret),
        answers::Missing,
        answers::Body,
        answers::Caller,
    )
)]
pub(crate) async fn rotate(
    state: Data<State>,
    Caller(client): Caller,
    Id(id): Id,
    OptionalBody(request): OptionalBody<Rotate>,
) -> Result<Json<Secret>, ApiError> {
    let Overlap(overlap) = request.overlap_seconds.unwrap_or_default();
    let secret = token::new_signing_secret();
    let sealed = webhook::seal_secret(&state.keyring, id, &secret);
    let mut conn = state.connection().await?;
    match Webhook::rotate_secret(&mut conn, client.id, id, &sealed, overlap).await? {
        true => Ok(Json(Secret::of(&secret))),
        false => Err(ApiError::not_found(webhooks::NO_WEBHOOK)),
    }
}

impl Secret {
    fn of(secret: &SecretString) -> Self {
        Self {
            status: "success",
            secret: secret.expose_secret().to_owned(),
        }
    }
}

schema! { Overlap, json!({
    "type": "integer",
    "minimum": 0,
    "maximum": LONGEST_OVERLAP,
    "default": Overlap::default().0,
}) }

impl Default for Overlap {
    fn default() -> Self {
        Self(86_400)
    }
}

impl<'de> Deserialize<'de> for Overlap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        within(deserializer, 0..=LONGEST_OVERLAP).map(Self)
    }
}
