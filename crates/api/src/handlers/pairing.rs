//! Connecting a number: the request, the wait for the gateway's first QR code, and the code's pictures.

use std::future::{Ready, ready};
use std::str::FromStr;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{Accept, Header, Quality, VARY};
use actix_web::web::{Data, Json};
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use diesel_async::AsyncPgConnection;
use domain::connection::{Connection, Pairing, Status};
use domain::phone::Phone;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use uuid::Uuid;

use super::connections::NO_CONNECTION;
use crate::auth::Caller;
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{Body, Id, IdempotencyKey, parsed, parsed_option};
use crate::openapi::schema::{one_of_or_null, verbatim};
use crate::openapi::values::{self, Binary};
use crate::openapi::{answers, schema};
use crate::state::State;
use crate::{gateway, qr};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct Connect {
    /// Your name for the session.
    user_id: Uuid,
    #[serde(deserialize_with = "parsed")]
    #[schema(value_type = values::PhoneNumber)]
    phone_number: Phone,
    /// By a QR code, or by a code that is typed into the phone.
    #[serde(default, deserialize_with = "parsed_option")]
    #[schema(schema_with = by, required = false)]
    pairing: Option<By>,
}

/// How the device is to be linked.
struct By(Pairing);

#[derive(Serialize, ToSchema)]
pub(crate) struct Connected {
    #[schema(schema_with = connecting)]
    status: String,
    /// A PNG, as a `data:` URL.
    #[schema(required = true, schema_with = data_url_or_null)]
    qr_code: Option<String>,
    #[schema(required = true, example = "ABCD-EFGH")]
    pairing_code: Option<String>,
    session_id: Uuid,
}

/// Connect a number
///
/// Waits some seconds for the first code, which the phone is to scan (or to be given, with `pairing: code`). A device that
/// is linked already needs none: then it waits for the session to be open, and when that takes longer, it goes on without
/// you. Asked again under its `Idempotency-Key` it answers with the first code still, which is good for some seconds only.
#[utoipa::path(
    post,
    path = "/api/whatsapp/connect",
    operation_id = "connect",
    tag = "WhatsApp",
    params(IdempotencyKey),
    request_body(content = Connect, example = json!({
        "user_id": "6f1d3c1e-0b1c-4b56-9f7e-2f0f5b3c9a01",
        "phone_number": "+55 11 98888-8888",
        "pairing": "qr",
    })),
    security(("bearer" = ["connect"])),
    responses(
        answers::Once,
        (status = 200, description = "A code, or the session is open or opening.", body = Connected),
        (status = 409, description = "The session is connected already or linked to another number, the number has a live connection under another user_id, the session has ended again, or the first request under the key is still under way.", body = Problem, content_type = "application/problem+json"),
        answers::Body,
        answers::Caller,
    )
)]
pub(crate) async fn connect(
    state: Data<State>,
    Caller(client): Caller,
    Body(request): Body<Connect>,
) -> Result<Json<Connected>, ApiError> {
    let (user, phone) = (request.user_id, &request.phone_number);
    let By(pairing) = request.pairing.unwrap_or(By(Pairing::Qr));
    {
        let mut conn = state.connection().await?;
        Connection::connect(&mut conn, client.id, user, phone, pairing).await?;
    }
    let look =
        async |conn: &mut AsyncPgConnection| Connection::of_user(conn, client.id, user).await;
    let (seen, _) = gateway::ask(&state, look, |row| row.is_none_or(has_moved)).await?;
    let connection = seen.ok_or_else(|| {
        ApiError::conflict(Kind::SessionEnded, "The connection was deleted meanwhile.")
    })?;
    answer(&connection).map(Json)
}

fn by() -> RefOr<Schema> {
    one_of_or_null(&["qr", "code"])
}

fn connecting() -> RefOr<Schema> {
    schema::one_of(&["connected", "reconnecting"])
}

fn data_url_or_null() -> RefOr<Schema> {
    verbatim(json!({"type": ["string", "null"], "pattern": "^data:image/png;base64,"}))
}

/// There is something to tell: a code, or another status than that of the request.
fn has_moved(connection: &Connection) -> bool {
    has_code(connection) || connection.status != Status::Reconnecting.as_str()
}

fn has_code(connection: &Connection) -> bool {
    connection.qr_code.is_some() || connection.pairing_code.is_some()
}

fn answer(connection: &Connection) -> Result<Connected, ApiError> {
    let is_reconnecting = connection.status == Status::Reconnecting.as_str();
    if !is_reconnecting && connection.status != Status::Connected.as_str() {
        let why = connection.reason.as_deref().unwrap_or("no reason given");
        let detail = format!("The session is {} again ({why}).", connection.status);
        return Err(ApiError::conflict(Kind::SessionEnded, detail));
    }
    let is_linked = connection.jid.is_some();
    if is_reconnecting && !has_code(connection) && !is_linked {
        let detail = "No gateway has answered yet. The request stands: a gateway that comes up takes \
                      it, and a QR code is then at /api/whatsapp/qr/{user_id}.";
        return Err(ApiError::unavailable(Kind::NoGateway, detail));
    }
    Ok(Connected {
        status: connection.status.clone(),
        qr_code: connection.qr_code.as_deref().map(data_url).transpose()?,
        pairing_code: connection.pairing_code.clone(),
        session_id: connection.id,
    })
}

fn data_url(code: &str) -> Result<String, ApiError> {
    let png = qr::png(code)?;
    Ok(format!(
        "data:image/png;base64,{}",
        BASE64_STANDARD.encode(png)
    ))
}

/// Show the current QR code
///
/// As the picture that `Accept` names, or as the text that is in it. A code is good for some seconds.
#[utoipa::path(
    get,
    path = "/api/whatsapp/qr/{user_id}",
    operation_id = "show_qr_code",
    tag = "WhatsApp",
    params(("user_id" = Uuid, Path, description = "The session's user.")),
    security(("bearer" = ["connect"])),
    responses(
        (status = 200, description = "The code.", content(
            (Binary = "image/png"),
            (String = "image/svg+xml"),
            (String = "text/plain"),
        )),
        (status = 406, description = "It can be had in none of the forms that are accepted.", body = Problem, content_type = "application/problem+json"),
        answers::Missing,
        answers::Caller,
    )
)]
pub(crate) async fn qr(
    state: Data<State>,
    Caller(client): Caller,
    Id(user): Id,
    form: Form,
) -> Result<HttpResponse, ApiError> {
    let connection = {
        let mut conn = state.connection().await?;
        Connection::of_user(&mut conn, client.id, user).await?
    };
    let connection = connection.ok_or_else(|| ApiError::not_found(NO_CONNECTION))?;
    let code = connection.qr_code.ok_or_else(|| {
        let detail = format!(
            "There is no QR code now: the session is {}.",
            connection.status
        );
        ApiError::plain(StatusCode::NOT_FOUND, detail)
    })?;
    let body = match form {
        Form::Png => qr::png(&code)?,
        Form::Svg => qr::svg(&code)?.into_bytes(),
        Form::Text => code.into_bytes(),
    };
    Ok(HttpResponse::Ok()
        .content_type(form.media_type())
        .insert_header((VARY, "Accept"))
        .body(body))
}

/// What a code can be had as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Png,
    Svg,
    Text,
}

impl Form {
    /// The first one is for who doesn't mind.
    const ALL: [Self; 3] = [Self::Png, Self::Svg, Self::Text];

    const fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Svg => "image/svg+xml",
            Self::Text => "text/plain; charset=utf-8",
        }
    }

    /// The best that an `Accept` header takes.
    fn accepted(accept: &Accept) -> Option<Self> {
        if accept.is_empty() {
            return Some(Self::Png);
        }
        let quality = |form: Self| {
            let media_type = form.media_type().split(';').next().unwrap_or_default();
            let (main, _) = media_type.split_once('/').unwrap_or_default();
            // The most specific range that covers a type says how much it is wanted.
            let matches = accept.iter().filter_map(|range| {
                let specificity = match range.item.essence_str() {
                    essence if essence == media_type => 2,
                    essence if essence.strip_suffix("/*") == Some(main) => 1,
                    "*/*" => 0,
                    _ => return None,
                };
                Some((specificity, range.quality))
            });
            matches
                .max_by_key(|(specificity, _)| *specificity)
                .map(|(_, quality)| quality)
        };
        // Of equals the first: max_by_key would take the last.
        let wanted = Self::ALL.into_iter().rev();
        wanted
            .filter_map(|form| {
                quality(form)
                    .filter(|q| *q > Quality::ZERO)
                    .map(|q| (q, form))
            })
            .max_by_key(|(quality, _)| *quality)
            .map(|(_, form)| form)
    }
}

impl FromRequest for Form {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let form = Accept::parse(request)
            .ok()
            .and_then(|accept| Self::accepted(&accept));
        ready(form.ok_or_else(|| {
            let detail = "A code can be had as image/png, image/svg+xml or text/plain.";
            ApiError::plain(StatusCode::NOT_ACCEPTABLE, detail)
        }))
    }
}

impl FromStr for By {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "qr" => Ok(Self(Pairing::Qr)),
            "code" => Ok(Self(Pairing::Code)),
            _ => Err("must be \"qr\" or \"code\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn form(accept: &str) -> Option<Form> {
        let request = TestRequest::default()
            .insert_header(("Accept", accept))
            .to_http_request();
        Accept::parse(&request)
            .ok()
            .and_then(|accept| Form::accepted(&accept))
    }

    #[test]
    fn the_picture_is_what_is_wanted_most() {
        for (accept, expected) in [
            ("*/*", Some(Form::Png)),
            ("image/*", Some(Form::Png)),
            ("image/png", Some(Form::Png)),
            ("image/svg+xml", Some(Form::Svg)),
            ("text/plain", Some(Form::Text)),
            ("text/*", Some(Form::Text)),
            ("text/html, image/svg+xml, */*;q=0.5", Some(Form::Svg)),
            ("image/png;q=0.5, text/plain;q=0.8", Some(Form::Text)),
            ("image/*, image/png;q=0", Some(Form::Svg)),
            ("application/json", None),
            ("image/png;q=0", None),
        ] {
            assert_eq!(form(accept), expected, "{accept}");
        }
        assert_eq!(Form::accepted(&Accept(Vec::new())), Some(Form::Png));
    }
}
