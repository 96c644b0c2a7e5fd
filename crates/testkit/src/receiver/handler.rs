use std::convert::Infallible;
use std::future;
use std::io;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use chrono::Utc;
use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use super::Socket;
use super::answer::{Answer, Ending};
use super::record::{InFlight, Received, Record};

/// Larger bodies are refused with a 413 that is not recorded.
pub(super) const LARGEST_BODY: usize = 16 << 20;

/// Records a request and answers it as scripted.
pub(super) async fn receive(
    request: HttpRequest,
    arrival: Arrival,
    body: Bytes,
    record: Data<Record>,
) -> HttpResponse {
    let headers = request.headers().iter().map(|(name, value)| {
        (
            name.as_str().to_owned(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    });
    let received = Received {
        sequence: 0,
        method: request.method().to_string(),
        path: request.path().to_owned(),
        headers: headers.collect(),
        // A copy, since the original keeps the whole read buffer alive.
        body: Bytes::copy_from_slice(&body),
        arrived: arrival.0,
        schema_error: None,
    };
    let (answer, in_flight) = record.into_inner().take(received);
    let Some(socket) = request.conn_data::<Socket>() else {
        return HttpResponse::ServiceUnavailable().body("out of file descriptors\n");
    };
    if answer.delay_ms > 0 {
        tokio::select! {
            () = sleep(Duration::from_millis(answer.delay_ms)) => {}
            () = socket.closed() => {}
        }
    }
    match answer.ending {
        Ending::Hang => socket.closed().await,
        Ending::Close => socket.cut(),
        Ending::Whole | Ending::Cut | Ending::Drip { .. } => {}
    }
    respond(answer, in_flight)
}

fn respond(answer: Answer, in_flight: InFlight) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    for (name, value) in &answer.headers {
        insert(&mut response, name, value);
    }
    let body = Bytes::from(answer.body);
    match answer.ending {
        Ending::Cut => {
            let end = stream::once(async {
                // actix-web sends what it has when the body is not ready, and not on an error.
                tokio::task::yield_now().await;
                Err(io::Error::other("cut on purpose"))
            });
            response.streaming(stream::iter([Ok(body)]).chain(end))
        }
        Ending::Drip { times, pause_ms } => {
            let drops = stream::iter(0..times).then(move |_| {
                let drop = body.clone();
                let _ = &in_flight;
                async move {
                    sleep(Duration::from_millis(pause_ms)).await;
                    Ok::<_, Infallible>(drop)
                }
            });
            response.streaming(drops)
        }
        Ending::Whole | Ending::Hang | Ending::Close => response.body(body),
    }
}

fn insert(response: &mut HttpResponseBuilder, name: &str, value: &str) {
    let name = HeaderName::from_bytes(name.as_bytes());
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
        response.insert_header((name, value));
    }
}

/// The moment in which a request's head was there, taken before its body is read.
pub(super) struct Arrival(chrono::DateTime<Utc>);

impl actix_web::FromRequest for Arrival {
    type Error = actix_web::Error;
    type Future = future::Ready<Result<Self, Self::Error>>;

    fn from_request(_: &HttpRequest, _: &mut actix_web::dev::Payload) -> Self::Future {
        future::ready(Ok(Self(Utc::now())))
    }
}
