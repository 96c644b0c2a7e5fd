//! The media hosts: uploads as clients do them, and downloads, also of parts.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::media::{Found, MAX_FILE, Media};
use crate::world::World;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let upload = || {
        // Clients use either method.
        web::resource("/mms/{kind}/{token}")
            .app_data(web::PayloadConfig::new(MAX_FILE))
            .route(web::post().to(upload))
            .route(web::put().to(upload))
    };
    config
        .service(upload())
        .route("/v/{path:.*}", web::get().to(download));
}

#[derive(Deserialize)]
struct Upload {
    auth: Option<String>,
    /// Only asks how far an earlier try has come.
    resume: Option<String>,
}

fn refused(status: u16, why: &str) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status);
    let status = status.unwrap_or(actix_web::http::StatusCode::BAD_REQUEST);
    HttpResponse::build(status).json(json!({ "error": why }))
}

fn wished(world: &World) -> Option<HttpResponse> {
    let status = world.faults.of(None).media_status;
    (status != 0).then(|| refused(status, "as was wished"))
}

async fn upload(
    world: web::Data<World>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    query: web::Query<Upload>,
    body: Bytes,
) -> HttpResponse {
    let (kind, token) = path.into_inner();
    if let Some(refusal) = wished(&world) {
        return refusal;
    }
    if query.auth.as_deref() != Some(&world.media.auth) {
        return refused(401, "another auth than the media connection's");
    }
    let direct_path = Media::path(&kind, &token);
    let url = format!("https://{}{direct_path}", request.connection_info().host());
    if query.resume.is_some() {
        return HttpResponse::Ok().json(match world.media.has(&direct_path) {
            true => json!({ "resume": "complete", "url": url, "direct_path": direct_path }),
            false => json!({ "resume": "0" }),
        });
    }
    // The name is the hash of what is sent.
    if Media::token(&body) != token {
        return refused(400, "the file is not the one that its name says");
    }
    world.media.add(&kind, body, None);
    HttpResponse::Ok().json(json!({ "url": url, "direct_path": direct_path }))
}

#[derive(Deserialize)]
struct Download {
    auth: Option<String>,
}

async fn download(
    world: web::Data<World>,
    request: HttpRequest,
    query: web::Query<Download>,
) -> HttpResponse {
    if let Some(refusal) = wished(&world) {
        return refusal;
    }
    // Who has the path needs no more; but what is shown must be right.
    if query
        .auth
        .as_ref()
        .is_some_and(|auth| *auth != world.media.auth)
    {
        return refused(403, "another auth than the media connection's");
    }
    let bytes = match world.media.fetch(request.path()) {
        Found::Bytes(bytes) => bytes,
        Found::Gone(status) => return refused(status, "gone"),
        Found::Nothing => return refused(404, "no such file"),
    };
    let range = request.headers().get(header::RANGE);
    let range = range.and_then(|range| range.to_str().ok());
    match range.map(|range| part(range, bytes.len())) {
        None | Some(Part::Whole) => HttpResponse::Ok()
            .insert_header((header::ACCEPT_RANGES, "bytes"))
            .content_type("application/octet-stream")
            .body(bytes),
        Some(Part::Bytes(from, to)) => {
            let place = format!("bytes {from}-{}/{}", to - 1, bytes.len());
            HttpResponse::PartialContent()
                .insert_header((header::CONTENT_RANGE, place))
                .content_type("application/octet-stream")
                .body(bytes.slice(from..to))
        }
        Some(Part::Nothing) => HttpResponse::RangeNotSatisfiable()
            .insert_header((header::CONTENT_RANGE, format!("bytes */{}", bytes.len())))
            .finish(),
    }
}

#[derive(Debug, PartialEq)]
enum Part {
    /// What isn't understood is as if it weren't there.
    Whole,
    Bytes(usize, usize),
    Nothing,
}

/// `bytes=FROM-TO`, `bytes=FROM-` or `bytes=-LAST` of so many bytes.
fn part(range: &str, length: usize) -> Part {
    let Some((from, to)) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Part::Whole;
    };
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let (from, to) = match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => (from, length.min(to.saturating_add(1))),
        (Some(from), None) if to.is_empty() => (from, length),
        (None, Some(last)) if from.is_empty() => (length.saturating_sub(last), length),
        _ => return Part::Whole,
    };
    match from < to {
        true => Part::Bytes(from, to),
        false => Part::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_defines_them() {
        for (range, expected) in [
            ("bytes=0-3", Part::Bytes(0, 4)),
            ("bytes=4-", Part::Bytes(4, 10)),
            ("bytes=-3", Part::Bytes(7, 10)),
            ("bytes=0-99", Part::Bytes(0, 10)),
            ("bytes=-99", Part::Bytes(0, 10)),
            ("bytes=10-", Part::Nothing),
            ("bytes=5-4", Part::Whole),
            ("bytes=0-1,4-5", Part::Whole),
            ("lines=0-1", Part::Whole),
        ] {
            assert_eq!(part(range, 10), expected, "{range}");
        }
    }
}
