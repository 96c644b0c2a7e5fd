//! A span and a log line per request, without personal data: the route's pattern instead of the path,
//! no query, no address, no user agent, no token.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage};
use runtime::telemetry;
use tracing::Span;
use tracing_actix_web::RootSpanBuilder;
use uuid::Uuid;

pub(crate) struct Access;

/// When a request came in, and what it is called in logs.
struct Arrival {
    at: Instant,
    id: HeaderValue,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_ID: usize = 128;

/// Names each request as its `X-Request-Id` does, or anew where that is none, and says the name in the answer.
pub(crate) async fn name(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let given = request.headers().get(&REQUEST_ID).filter(|id| is_name(id));
    let id = match given {
        Some(id) => id.clone(),
        None => HeaderValue::try_from(Uuid::new_v4().to_string())?,
    };
    let at = Instant::now();
    request
        .extensions_mut()
        .insert(Arrival { at, id: id.clone() });
    let mut response = next.call(request).await?;
    response.headers_mut().insert(REQUEST_ID, id);
    Ok(response)
}

/// What no log line takes for anything else.
fn is_name(id: &HeaderValue) -> bool {
    let taken = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte);
    (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(taken)
}

impl RootSpanBuilder for Access {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let extensions = request.extensions();
        let arrival = extensions.get::<Arrival>();
        let span = tracing::info_span!(
            "request",
            id = arrival.and_then(|arrival| arrival.id.to_str().ok()),
            method = request.method().as_str(),
            route = route(request.match_pattern()),
            client = tracing::field::Empty,
        );
        let traceparent = request.headers().get("traceparent");
        if let Some(traceparent) = traceparent.and_then(|header| header.to_str().ok()) {
            telemetry::continue_trace(&span, traceparent);
        }
        span
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        // An error that no handler turned into an answer is one of the HTTP layer below.
        let Ok(response) = outcome else { return };
        let (request, status) = (response.request(), response.status().as_u16());
        let extensions = request.extensions();
        let arrival = extensions.get::<Arrival>();
        let seconds = arrival.map_or(0.0, |arrival| arrival.at.elapsed().as_secs_f64());
        tracing::info!(status, duration_ms = seconds * 1000.0, "answered");
        telemetry::note_status(&span, status);
        metrics::histogram!(
            "recado_api_request_duration_seconds",
            "method" => method(request.method()),
            "route" => route(request.match_pattern()),
            "status" => status.to_string(),
        )
        .record(seconds);
    }
}

/// The methods that routes have; the others are one, since a caller could make up any number.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Everything that is no route is one route to logs and metrics, whatever people try.
fn route(pattern: Option<String>) -> String {
    pattern.unwrap_or_else(|| "none".to_owned())
}
