//! A span and a log line per request, without personal data: the route's pattern instead of the path,
//! no query, no address, no user agent, no token.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::{Error, HttpMessage};
use tracing::Span;
use tracing_actix_web::{RequestId, RootSpanBuilder};

pub(crate) struct Access;

/// When a request came in.
struct Arrival(Instant);

impl RootSpanBuilder for Access {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let id = request.extensions().get::<RequestId>().copied();
        request.extensions_mut().insert(Arrival(Instant::now()));
        tracing::info_span!(
            "request",
            id = id.map(tracing::field::display),
            method = request.method().as_str(),
            route = route(request.match_pattern()),
            client = tracing::field::Empty,
        )
    }

    fn on_request_end<B: MessageBody>(_: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        // An error that no handler turned into an answer is one of the HTTP layer below.
        let Ok(response) = outcome else { return };
        let (request, status) = (response.request(), response.status().as_u16());
        let arrival = request
            .extensions()
            .get::<Arrival>()
            .map(|arrival| arrival.0);
        let seconds = arrival.map_or(0.0, |arrival| arrival.elapsed().as_secs_f64());
        tracing::info!(status, duration_ms = seconds * 1000.0, "answered");
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
