//! A request under an `Idempotency-Key` is done once: whoever asks again gets the first one's answer, by whichever
//! instance.
//!
//! What is kept is that something was done: answers of 2xx. A refusal is forgotten, since nothing was: what was wrong
//! may be put right and asked for under the same key. A failure (5xx) is forgotten too, whatever it left behind.
//!
//! What is begun under a key is brought to its end also when nobody waits for it any more: that is when the client
//! asks again.

use std::time::Duration;

use actix_web::body::{BoxBody, to_bytes};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use actix_web::middleware::Next;
use actix_web::rt::spawn;
use actix_web::web::Data;
use actix_web::{Error, HttpResponse};
use bytes::Bytes;
use domain::idempotency::{Answer, Claim, Request, fingerprint};
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use crate::auth::Caller;
use crate::error::{ApiError, Kind};
use crate::extract::{Bounds, IdempotencyKey, read};
use crate::state::State;

/// Between two renewals of a claim: some may fail before it runs out.
const RENEWAL: Duration = Duration::from_secs(5);
/// For writing an answer down, and between two attempts at it.
const KEEPING: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_secs(1);

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What is to become of a request.
enum Turn {
    /// It has no key.
    Unnamed,
    First(Claim),
    Again(Answer),
}

/// Does a request once under its key. For routes in a scope that is wrapped in
/// [`authenticate`](crate::auth::authenticate), whose bodies are within these bounds.
pub(crate) async fn once(
    bounds: Bounds,
    state: Data<State>,
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse, Error> {
    match turn(&state, &mut request, bounds).await {
        Ok(Turn::Unnamed) => next.call(request).await,
        Ok(Turn::First(claim)) => {
            let first = first(state, claim, request, next).in_current_span();
            let ended = spawn(first).await;
            ended.unwrap_or_else(|_| Err(ApiError::interrupted().into()))
        }
        Ok(Turn::Again(answer)) => Ok(request.into_response(again(answer))),
        Err(refused) => Ok(request.error_response(refused)),
    }
}

async fn turn(
    state: &State,
    request: &mut ServiceRequest,
    bounds: Bounds,
) -> Result<Turn, ApiError> {
    let IdempotencyKey(Some(key)) = request.extract::<IdempotencyKey>().await? else {
        return Ok(Turn::Unnamed);
    };
    let Caller(client) = request.extract::<Caller>().await?;
    let (head, payload) = request.parts_mut();
    let body = read(head, payload, bounds).await?;
    let asked = fingerprint_of(request, &body);
    request.set_payload(Payload::from(body));

    let (mut conn, keyring) = (state.connection().await?, &state.keyring);
    if let Some(claim) = Claim::insert(&mut conn, keyring, client.id, &key, &asked).await? {
        return Ok(Turn::First(claim));
    }
    // What was there and is not any more has ended just now, with a refusal.
    let Some(known) = Request::find(&mut conn, client.id, &key).await? else {
        return Err(under_way());
    };
    if !known.is_of(keyring, &asked)? {
        let detail = "This Idempotency-Key was used for another request.";
        return Err(ApiError::unprocessable(Kind::KeyUsed, detail));
    }
    if let Some(answer) = known.answer(keyring)? {
        return Ok(Turn::Again(answer));
    }
    let taken = known.take_over(&mut conn).await?;
    taken.map(Turn::First).ok_or_else(under_way)
}

/// A file is another one when it is said to be of another type.
fn fingerprint_of(request: &ServiceRequest, body: &Bytes) -> Vec<u8> {
    let target = request.uri().path_and_query();
    let content_type = request.headers().get(CONTENT_TYPE);
    fingerprint(&[
        request.method().as_str().as_bytes(),
        target.map_or("", |target| target.as_str()).as_bytes(),
        content_type.map_or(b"", HeaderValue::as_bytes),
        body,
    ])
}

fn under_way() -> ApiError {
    let detail = "The first request under this Idempotency-Key is still under way.";
    ApiError::conflict(Kind::UnderWay, detail).with(RETRY_AFTER, "1")
}

/// Does what nobody else does under the claim.
async fn first(
    state: Data<State>,
    claim: Claim,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse, Error> {
    let renewing = async {
        loop {
            sleep(RENEWAL).await;
            noted(renew(&state, &claim).await);
        }
    };
    let answered = tokio::select! {
        answered = next.call(request) => answered,
        () = renewing => unreachable!("it has no end"),
    };
    match answered {
        Ok(response) if response.status().is_success() => {
            let (request, response) = response.into_parts();
            let (head, body) = response.into_parts();
            let body = to_bytes(body).await?;
            let content_type = head.headers().get(CONTENT_TYPE);
            let answer = Answer {
                status: head.status().as_u16().into(),
                content_type: content_type.and_then(|value| Some(value.to_str().ok()?.to_owned())),
                body: body.to_vec(),
            };
            noted(keep(&state, &claim, &answer).await);
            Ok(ServiceResponse::new(request, head.set_body(body)).map_into_boxed_body())
        }
        refused => {
            noted(release(&state, claim).await);
            refused
        }
    }
}

async fn renew(state: &State, claim: &Claim) -> Result<(), ApiError> {
    let mut conn = state.connection().await?;
    Ok(claim.renew(&mut conn).await?)
}

/// An answer that is not kept is asked for again, and done again. So it is tried more than once, while the claim
/// stands.
async fn keep(state: &State, claim: &Claim, answer: &Answer) -> Result<(), ApiError> {
    let end = Instant::now() + KEEPING;
    loop {
        let kept = async {
            let mut conn = state.connection().await?;
            Ok::<_, ApiError>(claim.keep(&mut conn, &state.keyring, answer).await?)
        };
        match kept.await {
            Err(error) if Instant::now() < end => noted(Err(error)),
            kept => return kept,
        }
        sleep(PAUSE).await;
    }
}

async fn release(state: &State, claim: Claim) -> Result<(), ApiError> {
    let mut conn = state.connection().await?;
    Ok(claim.release(&mut conn).await?)
}

/// The request is done or not, whatever becomes of its key: the claim runs out by itself.
fn noted(written: Result<(), ApiError>) {
    if let Err(error) = written {
        tracing::warn!("an idempotency key: {error}");
    }
}

/// The first one's answer once more.
fn again(answer: Answer) -> HttpResponse {
    let status = u16::try_from(answer.status).ok();
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let mut response = HttpResponse::build(status.expect("the table holds answers of 2xx"));
    if let Some(content_type) = answer.content_type {
        response.content_type(content_type);
    }
    response.insert_header((REPLAYED, "true")).body(answer.body)
}
