//! The API's description: as a document, and as a page that loads nothing from elsewhere.

use actix_web::HttpResponse;
use actix_web::body::MessageBody;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::{Data, Path};
use bytes::Bytes;
use utoipa_swagger_ui::Config;

use crate::error::ApiError;
use crate::openapi::values::Document as Described;
use crate::openapi::{self, answers};

const PAGE: &str = include_str!("docs/page.html");
const SCRIPT: &str = include_str!("docs/page.js");

/// The files of Swagger UI that the page uses.
const FILES: [&str; 3] = [
    "swagger-ui.css",
    "swagger-ui-bundle.js",
    "favicon-32x32.png",
];

/// The page changes with the program, the files with Swagger UI only.
const CACHE: &str = "public, max-age=3600";

/// Nothing from elsewhere, neither code nor pictures, and no request to anybody but this server. Swagger UI
/// sets styles on its elements.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";
const SECURITY: HeaderName = HeaderName::from_static("content-security-policy");

/// The document, written once for all requests.
pub(crate) struct Document(Bytes);

impl Document {
    pub(crate) fn new() -> Self {
        Self(openapi::document().to_string().into())
    }
}

/// Describe the API
///
/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "show_description",
    tag = "Service",
    security(()),
    responses((status = 200, description = "The document.", body = Described), answers::Anybody),
)]
pub(crate) async fn description(document: Data<Document>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(document.0.clone())
}

/// Describe the API on a page
///
/// The same to be read and tried out in a browser. It loads nothing from elsewhere.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "show_docs",
    tag = "Service",
    security(()),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), answers::Anybody),
)]
pub(crate) async fn page() -> HttpResponse {
    answer("text/html; charset=utf-8", PAGE)
}

/// What the page consists of.
pub(crate) async fn file(name: Path<String>) -> Result<HttpResponse, ApiError> {
    if name.as_str() == "page.js" {
        let script = answer("text/javascript; charset=utf-8", SCRIPT);
        return Ok(script);
    }
    let known = FILES.iter().find(|file| **file == name.as_str());
    let file = known.and_then(|file| {
        let config = Config::default().into();
        utoipa_swagger_ui::serve(file, config).ok()?
    });
    let file = file.ok_or_else(|| ApiError::not_found("such route"))?;
    let mut answer = answer(&file.content_type, file.bytes.into_owned());
    let cached = HeaderValue::from_static(CACHE);
    answer.headers_mut().insert(header::CACHE_CONTROL, cached);
    Ok(answer)
}

fn answer(content_type: &str, body: impl MessageBody + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((SECURITY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .body(body)
}
