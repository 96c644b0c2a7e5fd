//! One request: the body, its signature, and as much of the answer as is kept.
//!
//! A failed delivery is a value here. What it means for the event is [`crate::policy`]'s to say.

mod answer;
mod client;
mod connect;
mod failure;

use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::claim::Claimed;
use domain::ids;
use domain::payload::rfc3339;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use tokio::time::{Instant as Deadline, timeout_at};
use uuid::Uuid;

use crate::endpoint::Endpoint;
use crate::policy;
use crate::sign::signature;
pub(crate) use client::{Client, Clients};
pub(crate) use failure::{Class, Failure};

const EVENT_ID: HeaderName = HeaderName::from_static("x-webhook-event-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-webhook-timestamp");
const ATTEMPT: HeaderName = HeaderName::from_static("x-webhook-attempt");
const STANDARD_ID: HeaderName = HeaderName::from_static("webhook-id");
const STANDARD_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const STANDARD_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Who says that it calls, unless the webhook has a header of its own for it.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("Recado/", env!("CARGO_PKG_VERSION")));
/// Resolving and connecting may take at most this of an attempt's time.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);

/// What goes into one request.
pub(crate) struct Parcel<'a> {
    /// Of the event, or of the batch.
    pub(crate) id: Uuid,
    pub(crate) is_batch: bool,
    /// From 1; of a batch that of its first event.
    pub(crate) number: i32,
    /// At least one.
    events: Vec<&'a Claimed>,
}

/// What happened when a request was sent.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) took: Duration,
    pub(crate) status: Option<StatusCode>,
    /// The beginning of the answer's body.
    pub(crate) response: Option<String>,
    /// How long the receiver asks us to wait.
    pub(crate) retry_after: Option<Duration>,
    /// `None`: delivered.
    pub(crate) failure: Option<Failure>,
}

/// What an answer held, as far as it came.
#[derive(Default)]
struct Answer {
    status: Option<StatusCode>,
    response: Option<String>,
    retry_after: Option<Duration>,
}

impl<'a> Parcel<'a> {
    /// A batch where the webhook wants batches, also for one event.
    pub(crate) fn new(endpoint: &Endpoint, events: Vec<&'a Claimed>) -> Self {
        let first = events[0];
        let is_batch = endpoint.terms.batch.is_some();
        let id = match is_batch {
            true => ids::batch(events.iter().map(|event| event.id)),
            false => first.id,
        };
        Self {
            id,
            is_batch,
            number: first.attempt_count.saturating_add(1),
            events,
        }
    }

    fn body(&self) -> Result<Vec<u8>, Failure> {
        let body = |event: &Claimed| event.body().map_err(|_| Failure::payload());
        if !self.is_batch {
            return body(self.events[0]);
        }
        let mut whole = br#"{"events":["#.to_vec();
        for (index, event) in self.events.iter().enumerate() {
            if index > 0 {
                whole.push(b',');
            }
            whole.extend(body(event)?);
        }
        whole.extend(b"]}");
        Ok(whole)
    }
}

/// Makes one attempt, which takes `timeout` at the most.
pub(crate) async fn attempt(
    endpoint: &Endpoint,
    parcel: &Parcel<'_>,
    timeout: Duration,
) -> Attempt {
    let (started_at, start) = (Utc::now(), Instant::now());
    let mut answer = Answer::default();
    let sent = match request(endpoint, parcel, started_at) {
        Ok(request) => send(&endpoint.client, request, start, timeout, &mut answer).await,
        Err(failure) => Err(failure),
    };
    Attempt {
        started_at,
        took: start.elapsed(),
        status: answer.status,
        response: answer.response,
        retry_after: answer.retry_after,
        failure: sent.err(),
    }
}

fn request(
    endpoint: &Endpoint,
    parcel: &Parcel<'_>,
    at: DateTime<Utc>,
) -> Result<Request<Full<Bytes>>, Failure> {
    let target = endpoint.target.clone()?;
    let body = parcel.body()?;
    let mut id = Uuid::encode_buffer();
    let id = &*parcel.id.as_hyphenated().encode_lower(&mut id);
    let signed = signature(endpoint.keys(), id, at.timestamp(), &body);
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target;
    let headers = request.headers_mut();
    headers.reserve(9 + endpoint.headers.len());
    headers.insert(USER_AGENT, AGENT);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    for (name, value) in &endpoint.headers {
        headers.insert(name.clone(), value.clone());
    }
    write_headers(headers, id, parcel.number, at, &signed);
    Ok(request)
}

async fn send(
    client: &Client,
    request: Request<Full<Bytes>>,
    start: Instant,
    timeout: Duration,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let deadline = Deadline::from_std(start + timeout);
    let head = timeout_at(deadline, client.request(request))
        .await
        .map_err(|_| Failure::no_answer(timeout))?
        .map_err(|error| Failure::of_request(&error))?;
    let (head, body) = head.into_parts();
    answer.status = Some(head.status);
    if !head.status.is_success() {
        let header = head.headers.get(RETRY_AFTER);
        answer.retry_after = header.and_then(|value| policy::retry_after(value, Utc::now()));
    }
    let mut kept = answer::Kept::default();
    let read = timeout_at(deadline, kept.read(body)).await;
    answer.response = kept.into_text();
    if !head.status.is_success() {
        return Err(Failure::of_status(head.status));
    }
    read.map_err(|_| Failure::no_end(timeout))?
        .map_err(|error| Failure::of_body(&error))
}

fn write_headers(headers: &mut HeaderMap, id: &str, attempt: i32, at: DateTime<Utc>, signed: &str) {
    let value = |text: &str| {
        HeaderValue::from_str(text).expect("ids, numbers, times and base64 are visible ASCII")
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(EVENT_ID, value(id));
    headers.insert(TIMESTAMP, value(&rfc3339(at)));
    headers.insert(ATTEMPT, attempt.into());
    headers.insert(STANDARD_ID, value(id));
    headers.insert(STANDARD_TIMESTAMP, at.timestamp().into());
    headers.insert(STANDARD_SIGNATURE, value(signed));
}
