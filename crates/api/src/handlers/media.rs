//! Files of messages.

use std::time::Duration;

use actix_web::body::SizedStream;
use actix_web::http::header::{self, HeaderName};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use domain::media::File;
use domain::upload::Upload;
use futures_util::stream;
use serde::Serialize;
use uuid::Uuid;

use crate::auth::Caller;
use crate::disposition;
use crate::error::{ApiError, Kind};
use crate::extract::{Id, read};
use crate::media::Cut;
use crate::state::State;

/// Bytes of a file that is uploaded, and what it may take.
const LARGEST: usize = 16 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

const CACHE: &str = "private, no-store";
/// Whatever the file is, a browser that is led here runs none of it.
const POLICY: &str = "default-src 'none'; sandbox";

/// The file of the message of that id. Its head is what was said of it, and asks WhatsApp nothing.
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

#[derive(Serialize)]
struct Uploaded<'a> {
    status: &'static str,
    media: Described<'a>,
}

#[derive(Serialize)]
struct Described<'a> {
    id: Uuid,
    mimetype: &'a str,
    size: i32,
    sha256: String,
}

/// Keeps a file for a day, to be sent.
pub(crate) async fn upload(
    state: Data<State>,
    Caller(client): Caller,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let mimetype = said_type(&request)?;
    let Ok(_turn) = state.uploads.try_acquire() else {
        let detail = "Too many files are being uploaded at the moment.";
        return Err(ApiError::unavailable(Kind::Status, detail));
    };
    let content = read(&request, &mut payload.into_inner(), LARGEST, PATIENCE).await?;
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
