//! Files for messages to refer to, and what becomes of them.

use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::json;
use wacore::download::MediaType;
use wacore::upload::encrypt_media;

use super::{Answer, Refused, parse, query};
use crate::media::MAX_FILE;
use crate::world::{World, unix_time};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    kind: Kind,
    mimetype: Option<String>,
    /// So many random bytes.
    size: Option<usize>,
    /// Or these.
    base64: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Image,
    Video,
    Audio,
    Document,
    Sticker,
    LinkThumbnail,
    History,
    AppState,
}

impl Kind {
    fn media_type(self) -> MediaType {
        match self {
            Self::Image => MediaType::Image,
            Self::Video => MediaType::Video,
            Self::Audio => MediaType::Audio,
            Self::Document => MediaType::Document,
            Self::Sticker => MediaType::Sticker,
            Self::LinkThumbnail => MediaType::LinkThumbnail,
            Self::History => MediaType::History,
            Self::AppState => MediaType::AppState,
        }
    }

    fn mimetype(self) -> &'static str {
        match self {
            Self::Image | Self::LinkThumbnail => "image/jpeg",
            Self::Video => "video/mp4",
            Self::Audio => "audio/ogg; codecs=opus",
            Self::Sticker => "image/webp",
            _ => "application/octet-stream",
        }
    }
}

impl New {
    fn content(&self) -> Result<Vec<u8>, Refused> {
        match (self.size, &self.base64) {
            (Some(size), None) if size <= MAX_FILE / 2 => {
                let mut bytes = vec![0; size];
                rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
                Ok(bytes)
            }
            (Some(_), None) => {
                let most = MAX_FILE / 2;
                Err(Refused::bad_request(format!("size is at most {most}")))
            }
            (None, Some(text)) => BASE64_STANDARD
                .decode(text)
                .map_err(|error| Refused::bad_request(format!("base64: {error}"))),
            _ => Err(Refused::bad_request("either size or base64")),
        }
    }
}

/// Encrypts a file and puts it where clients fetch it. The answer is what a message says of it.
pub(super) async fn create(
    world: web::Data<World>,
    request: HttpRequest,
    body: web::Bytes,
) -> Answer {
    let new: New = parse(&body)?;
    let content = new.content()?;
    let kind = new.kind.media_type();
    let length = content.len();
    let encrypted = tokio::task::spawn_blocking(move || encrypt_media(&content, kind));
    let encrypted = encrypted.await.map_err(Refused::conflict)?;
    let encrypted = encrypted.map_err(Refused::conflict)?;
    let path = world.media.add(
        kind.mms_type(),
        encrypted.data_to_upload.into(),
        Some(encrypted.media_key),
    );
    let url = format!("https://{}{path}", request.connection_info().host());
    let text = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    Ok(HttpResponse::Ok().json(json!({
        "direct_path": path,
        "url": url,
        "mimetype": new.mimetype.unwrap_or_else(|| new.kind.mimetype().to_owned()),
        "media_key": text(&encrypted.media_key),
        "media_key_timestamp": unix_time(),
        "file_sha256": text(&encrypted.file_sha256),
        "file_enc_sha256": text(&encrypted.file_enc_sha256),
        "file_length": length,
        "streaming_sidecar": encrypted.streaming_sidecar.as_deref().map(text),
    })))
}

pub(super) async fn list(world: web::Data<World>) -> HttpResponse {
    HttpResponse::Ok().json(world.media.list())
}

fn missing(path: &str) -> Refused {
    Refused::not_found(format!("no file {path}"))
}

/// `?status=`: 410, or another one that downloads are refused with.
pub(super) async fn delete(
    world: web::Data<World>,
    path: web::Path<String>,
    request: HttpRequest,
) -> Answer {
    let status = match query(request.query_string())?.get("status") {
        None => 410,
        Some(status) => {
            let status = status
                .parse()
                .ok()
                .filter(|status| (400..600).contains(status));
            status.ok_or_else(|| Refused::bad_request("status: 400 to 599"))?
        }
    };
    let path = format!("/{path}");
    match world.media.forget(&path, status) {
        true => Ok(HttpResponse::Ok().json(json!({ "direct_path": path, "gone": status }))),
        false => Err(missing(&path)),
    }
}

pub(super) async fn corrupt(world: web::Data<World>, path: web::Path<String>) -> Answer {
    let path = format!("/{path}");
    match world.media.corrupt(&path) {
        true => Ok(HttpResponse::Ok().json(json!({ "direct_path": path, "corrupt": true }))),
        false => Err(missing(&path)),
    }
}
