//! Files of messages.

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{MessageBody, SizedStream};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderName};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::{Data, Payload};
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse, HttpResponseBuilder};
use domain::media::File;
use domain::upload::Upload;
use futures_util::stream;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::Caller;
use crate::disposition;
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{Bounds, Id, IdempotencyKey, read};
use crate::media::Cut;
use crate::openapi::answers;
use crate::openapi::values::{self, Binary, FileContent};
use crate::state::State;

/// Of a file that is uploaded.
pub(crate) const FILE: Bounds = Bounds {
    bytes: 16 * 1024 * 1024,
    time: Duration::from_secs(60),
};

const CACHE: &str = "private, no-store";
/// Whatever the file is, a browser that is led here runs none of it.
const POLICY: &str = "default-src 'none'; sandbox";

/// Fetch the file of a message
///
/// As long as WhatsApp keeps it: some weeks. It is decrypted and checked on the way; an answer that breaks off is no whole
/// file. A `HEAD` says what was said of the file, and asks WhatsApp nothing.
/// Uploads are to be sent, and cannot be had.
#[utoipa::path(
    get,
    path = "/api/media/{media_id}",
    operation_id = "show_media",
    tag = "Media",
    params(("media_id" = Uuid, Path, description = "The `id` of `metadata.media` of the message.")),
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "The file, with its own Content-Type.", body = Binary, content_type = "*/*", headers(("Content-Disposition" = String, description = "`attachment`, and the file's name."))),
        (status = 410, description = "WhatsApp keeps the file no more.", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "What WhatsApp has is not the file that was sent.", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "WhatsApp's media host did not answer in time.", body = Problem, content_type = "application/problem+json"),
        answers::Missing,
        answers::Caller,
    )
)]
pub(crate) async fn show(
    state: Data<State>,
    Caller(client): Caller,
    Id(id): Id,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let sealed = {
        let mut conn = state.connection().await?;
        File::find_sealed(&mut conn, client.id, id).await?
    };
    let sealed = sealed.ok_or_else(|| ApiError::not_found("file of a message of that id"))?;
    let file = File::open(&state.keyring, id, &sealed)?;
    let mut answer = head(&file, id);
    if request.method() == Method::HEAD {
        let nothing = SizedStream::new(file.size, stream::empty::<Result<_, Cut>>());
        return Ok(answer.body(nothing));
    }
    let body = state.media.open(&file).await?;
    Ok(answer.body(SizedStream::new(file.size, body)))
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Uploaded<'a> {
    #[schema(schema_with = values::success)]
    status: &'static str,
    media: Described<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Upload)]
struct Described<'a> {
    id: Uuid,
    mimetype: &'a str,
    size: i32,
    /// In hex.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    sha256: String,
}

/// Upload a file that is to be sent
///
/// The body is the file itself, up to 16 MiB, with its own `Content-Type`. It is kept for a day.
#[utoipa::path(
    post,
    path = "/api/media",
    operation_id = "upload_media",
    tag = "Media",
    params(IdempotencyKey),
    request_body(
        description = "The file, of whatever type but a form (`multipart/…`).",
        content(
            (FileContent = "application/octet-stream"),
            (FileContent = "application/pdf"),
            (FileContent = "audio/ogg"),
            (FileContent = "image/jpeg"),
            (FileContent = "video/mp4"),
        ),
    ),
    security(("bearer" = ["send"])),
    responses(
        answers::Once,
        (status = 201, description = "It is kept.", body = Uploaded),
        (status = 422, description = "You have as many uploads as you may, or the key was used for another request.", body = Problem, content_type = "application/problem+json"),
        answers::Body,
        answers::Caller,
    )
)]
pub(crate) async fn upload(
    state: Data<State>,
    Caller(client): Caller,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let mimetype = said_type(&request)?;
    let content = read(&request, &mut payload.into_inner(), FILE).await?;
    if content.is_empty() {
        let detail = "The body must be the file, and is empty.";
        return Err(ApiError::plain(StatusCode::BAD_REQUEST, detail));
    }
    let kept = {
        let mut conn = state.connection().await?;
        Upload::insert(&mut conn, client.id, &mimetype, &content).await?
    };
    let upload = kept.ok_or_else(|| {
        let detail = "You have as many files here as you may: each is deleted after a day.";
        ApiError::unprocessable(Kind::UploadsFull, detail)
    })?;
    let media = Described {
        id: upload.id,
        mimetype: &upload.mimetype,
        size: upload.size,
        sha256: upload
            .sha256
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    };
    Ok(HttpResponse::Created().json(Uploaded {
        status: "success",
        media,
    }))
}

/// Lets in as many uploads at once as there is memory for: each is one until its request is gone.
pub(crate) async fn take_turn(
    state: Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    match Arc::clone(&state.uploads).try_acquire_owned() {
        Ok(turn) => {
            request.extensions_mut().insert(turn);
            Ok(next.call(request).await?.map_into_left_body())
        }
        Err(_) => {
            let detail = "Too many files are being uploaded at the moment.";
            let refused = ApiError::unavailable(Kind::Status, detail);
            Ok(request.error_response(refused).map_into_right_body())
        }
    }
}

fn said_type(request: &HttpRequest) -> Result<String, ApiError> {
    let said = request.headers().get(header::CONTENT_TYPE);
    let said = said.and_then(|said| said.to_str().ok()).map(str::trim);
    let is_form = |said: &str| said.starts_with("multipart/");
    said.filter(|said| disposition::is_media_type(said) && !is_form(said))
        .map(str::to_owned)
        .ok_or_else(|| {
            let detail = "The body must be the file itself, with its own Content-Type.";
            ApiError::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
        })
}

fn head(file: &File, id: Uuid) -> HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    let name = match &file.file_name {
        Some(name) => name.clone(),
        None => format!("{}-{id}", file.kind.as_str()),
    };
    let mimetype = file.mimetype.as_deref();
    answer
        .content_type(disposition::content_type(mimetype))
        .insert_header((header::CONTENT_DISPOSITION, disposition::attachment(&name)))
        .insert_header((header::CACHE_CONTROL, CACHE))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((HeaderName::from_static("content-security-policy"), POLICY));
    answer
}
