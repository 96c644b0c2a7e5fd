//! JSON bodies. An unknown field is an error: a typo must not look like success.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::{StatusCode, header};
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use serde::de::DeserializeOwned;

use super::blamed;
use crate::error::ApiError;

/// The most that a body may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) bytes: usize,
    /// In which it must come.
    pub(crate) time: Duration,
}

/// Of JSON.
pub(crate) const JSON: Bounds = Bounds {
    bytes: 1024 * 1024,
    time: Duration::from_secs(10),
};

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

/// A JSON body whose every field has a default, and that may be missing altogether.
pub(crate) struct OptionalBody<T>(pub(crate) T);

type Extracted<T> = LocalBoxFuture<'static, Result<T, ApiError>>;

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let form = check_form(request);
        let body = read(request, payload, JSON);
        Box::pin(async move {
            form?;
            parse(&body.await?).map(Self)
        })
    }
}

impl<T: DeserializeOwned + Default + 'static> FromRequest for OptionalBody<T> {
    type Error = ApiError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let form = check_form(request);
        let body = read(request, payload, JSON);
        Box::pin(async move {
            let body = body.await?;
            if body.is_empty() {
                return Ok(Self(T::default()));
            }
            form?;
            parse(&body).map(Self)
        })
    }
}

/// Whether the body says that it is JSON, and plain.
fn check_form(request: &HttpRequest) -> Result<(), ApiError> {
    let kind = request.content_type();
    let refused = match request.headers().get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => "The body must not be compressed.",
        _ if kind.eq_ignore_ascii_case("application/json") => return Ok(()),
        _ => "The body must be JSON, with Content-Type: application/json.",
    };
    Err(ApiError::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, refused)
        .with(header::ACCEPT, "application/json"))
}

/// The whole body, if it is within these bounds.
pub(crate) fn read(
    request: &HttpRequest,
    payload: &mut Payload,
    bounds: Bounds,
) -> impl Future<Output = Result<Bytes, ApiError>> + use<> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced: usize = announced
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    let payload = payload.take();
    async move {
        if announced > bounds.bytes {
            return Err(too_large(bounds.bytes));
        }
        let whole = collect(payload, announced, bounds.bytes);
        let whole = tokio::time::timeout(bounds.time, whole).await;
        whole.unwrap_or_else(|_| {
            let detail = "The body did not come in time.";
            Err(ApiError::plain(StatusCode::REQUEST_TIMEOUT, detail))
        })
    }
}

async fn collect(mut payload: Payload, announced: usize, limit: usize) -> Result<Bytes, ApiError> {
    let mut body = BytesMut::with_capacity(announced);
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error: PayloadError| {
            let detail = format!("The body could not be read: {error}.");
            ApiError::plain(StatusCode::BAD_REQUEST, detail)
        })?;
        if body.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn too_large(limit: usize) -> ApiError {
    let detail = format!("The body must not have more than {limit} bytes.");
    ApiError::plain(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde would take an array for a struct, field by field.
    if body.trim_ascii_start().starts_with(b"[") {
        let detail = "The body must be a JSON object, not an array.";
        return Err(ApiError::plain(StatusCode::BAD_REQUEST, detail));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let inner = error.inner();
        let message = inner.to_string();
        let place = format!(" at line {} column {}", inner.line(), inner.column());
        let message = message.strip_suffix(&place).unwrap_or(&message);
        let blamed = match inner.is_data() {
            true => blamed(error.path(), message),
            false => None,
        };
        blamed.unwrap_or_else(|| malformed(inner))
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> ApiError {
    let detail = format!("The body is not the JSON that is expected here: {error}.");
    ApiError::plain(StatusCode::BAD_REQUEST, detail)
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, expecting = "an object")]
    #[expect(dead_code, reason = "only the refusals are looked at")]
    struct Request {
        id: Uuid,
        names: Option<Vec<String>>,
    }

    fn refusal(body: &str) -> String {
        let error = parse::<Request>(body.as_bytes()).unwrap_err();
        assert_eq!(error.status_code(), StatusCode::BAD_REQUEST);
        error
            .to_string()
            .trim_start_matches("400 Bad Request: ")
            .to_owned()
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        const ID: &str = r#""id":"018f0000-0000-7000-8000-000000000000""#;
        assert_eq!(refusal("{}"), "id: is required");
        assert!(refusal(r#"{"id":7}"#).starts_with("id: invalid type: integer `7`"));
        assert!(refusal(r#"{"id":"7"}"#).starts_with("id: UUID parsing failed"));
        let unknown = refusal(&format!(r#"{{{ID},"name":1}}"#));
        assert_eq!(
            unknown,
            "name: unknown field `name`, expected `id` or `names`"
        );
        let nested = refusal(&format!(r#"{{{ID},"names":["a",7]}}"#));
        assert_eq!(
            nested,
            "names[1]: invalid type: integer `7`, expected a string"
        );
        assert_eq!(refusal(&format!("{{{ID},{ID}}}")), "id: stands twice");
    }

    #[test]
    fn what_is_no_json_object_is_said_to_be_so() {
        for body in ["", "{", "nonsense", "\"\u{0}\"", "\"text\"", "7"] {
            assert!(
                refusal(body).contains("line 1"),
                "{body:?}: {}",
                refusal(body)
            );
        }
        for body in ["[]", " [\"018f0000-0000-7000-8000-000000000000\", null]"] {
            assert!(refusal(body).contains("a JSON object"), "{body:?}");
        }
        let followed = r#"{"id":"018f0000-0000-7000-8000-000000000000"} x"#;
        assert!(refusal(followed).contains("trailing characters"));
    }
}
