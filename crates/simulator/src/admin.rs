//! The control API. Bodies are read whatever their content type says.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError, web};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

mod accounts;
mod calls;
mod groups;
mod inject;
mod media;
mod messages;
mod mock_phone;
mod presence;
mod receipts;
mod retry;

use crate::account::Account;
use crate::faults;
use crate::world::{World, phone_number};

/// The largest body that is read.
const MAX_BODY: usize = 32 << 20;

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(MAX_BODY))
        .route(
            "/admin/mock-phone/scan-qr",
            web::post().to(mock_phone::scan_qr),
        )
        .route(
            "/admin/mock-phone/enter-code",
            web::post().to(mock_phone::enter_code),
        )
        .route("/admin/messages", web::post().to(messages::send))
        .route("/admin/messages", web::get().to(messages::list))
        .route(
            "/admin/messages/{id}/resend",
            web::post().to(messages::resend),
        )
        .route("/admin/groups", web::post().to(groups::create))
        .route("/admin/groups", web::get().to(groups::list))
        .route("/admin/groups/{id}", web::get().to(groups::show))
        .route("/admin/groups/{id}/{what}", web::post().to(groups::change))
        .route("/admin/calls", web::post().to(calls::ring))
        .route("/admin/calls", web::get().to(calls::list))
        .route(
            "/admin/calls/{id}/terminate",
            web::post().to(calls::terminate),
        )
        .route("/admin/presence", web::post().to(presence::show))
        .route("/admin/presence", web::get().to(presence::list))
        .route("/admin/media", web::post().to(media::create))
        .route("/admin/media", web::get().to(media::list))
        .route(
            "/admin/media/{path:.*}/corrupt",
            web::post().to(media::corrupt),
        )
        .route("/admin/media/{path:.*}", web::delete().to(media::delete))
        .route("/admin/retry", web::post().to(retry::ask))
        .route("/admin/receipts", web::post().to(receipts::send))
        .route("/admin/outbox", web::get().to(messages::outbox))
        .route("/admin/accounts", web::get().to(accounts::list))
        .route(
            "/admin/accounts/{phone}/disconnect",
            web::post().to(accounts::disconnect),
        )
        .route(
            "/admin/accounts/{phone}/logout",
            web::post().to(accounts::logout),
        )
        .route(
            "/admin/accounts/{phone}/replace",
            web::post().to(accounts::replace),
        )
        .route("/admin/accounts/{phone}/ban", web::post().to(accounts::ban))
        .route(
            "/admin/accounts/{phone}/stream-error",
            web::post().to(inject::end_stream),
        )
        .route(
            "/admin/accounts/{phone}/inject",
            web::post().to(inject::inject),
        )
        .route("/admin/certificate", web::get().to(certificate))
        .route("/admin/faults", web::get().to(show_faults))
        .route("/admin/faults", web::post().to(set_faults))
        .route("/admin/stats", web::get().to(stats));
}

/// A refusal: a status and `{"error": why}`.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    why: String,
}

impl Refused {
    fn new(status: StatusCode, why: impl std::fmt::Display) -> Self {
        Self {
            status,
            why: format!("{why:#}"),
        }
    }

    fn bad_request(why: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }

    fn not_found(why: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, why)
    }

    fn conflict(why: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, why)
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.why)
    }
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status).json(json!({ "error": self.why }))
    }
}

type Answer = Result<HttpResponse, Refused>;

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(Refused::bad_request)
}

fn query(text: &str) -> Result<std::collections::HashMap<String, String>, Refused> {
    web::Query::from_query(text)
        .map(web::Query::into_inner)
        .map_err(Refused::bad_request)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn numbers(&self) -> &[String] {
        match self {
            Self::One(number) => std::slice::from_ref(number),
            Self::Many(numbers) => numbers,
        }
    }
}

/// The account with that number, to which something is linked.
fn paired(world: &World, number: &str) -> Result<Arc<Account>, Refused> {
    let number = phone_number(number).map_err(Refused::bad_request)?;
    let account = world.find(&number);
    account
        .filter(|account| !account.devices().is_empty())
        .ok_or_else(|| Refused::not_found(format!("{number} is not paired")))
}

/// The part before `@g.us`.
fn group_id(name: &str) -> &str {
    name.strip_suffix("@g.us").unwrap_or(name)
}

/// An answer says that it has happened, so it must outlive the process.
async fn written(world: &World) -> Result<(), Refused> {
    match world.journal.flushed().await {
        true => Ok(()),
        false => Err(Refused::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the state cannot be written",
        )),
    }
}

async fn show_faults(world: web::Data<World>) -> HttpResponse {
    HttpResponse::Ok().json(world.faults.shown())
}

async fn set_faults(world: web::Data<World>, body: web::Bytes) -> Answer {
    let mut request: faults::Request = parse(&body)?;
    if let Some(account) = &request.account {
        request.account = Some(phone_number(account).map_err(Refused::bad_request)?);
    }
    world.faults.set(&request);
    Ok(show_faults(world).await)
}

/// What the TLS port shows.
async fn certificate(world: web::Data<World>) -> Answer {
    let identity = world.tls_identity().map_err(Refused::conflict)?;
    Ok(HttpResponse::Ok()
        .content_type("application/x-pem-file")
        .body(identity.pem()))
}

async fn stats(world: web::Data<World>) -> HttpResponse {
    HttpResponse::Ok().json(world.stats.to_json())
}
