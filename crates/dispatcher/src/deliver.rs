//! One attempt: the body, its signature, the request, and as much of the answer as is kept.
//!
//! A failed delivery is a value here. What it means for the event is [`crate::policy`]'s to say.

mod answer;
mod client;
mod failure;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use domain::claim::Claimed;
use domain::keyring::Keyring;
use domain::payload::rfc3339;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Request, StatusCode};
use tokio::time::{Instant as Deadline, timeout_at};

use crate::config::SendingConfig;
use crate::guard::Guard;
use crate::policy;
use crate::sign::{Key, SecretError, Secrets, signature};
pub(crate) use failure::{Class, Failure};

const EVENT_ID: HeaderName = HeaderName::from_static("x-webhook-event-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-webhook-timestamp");
const ATTEMPT: HeaderName = HeaderName::from_static("x-webhook-attempt");
const STANDARD_ID: HeaderName = HeaderName::from_static("webhook-id");
const STANDARD_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const STANDARD_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What happened when an event was sent.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// From 1.
    pub(crate) number: i32,
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

/// Sends events. One client serves all webhooks, so that connections are used again.
pub(crate) struct Sender {
    client: Client,
    guard: Guard,
    secrets: Secrets,
    timeout: Duration,
}

/// What an answer held, as far as it came.
#[derive(Default)]
struct Answer {
    status: Option<StatusCode>,
    response: Option<String>,
    retry_after: Option<Duration>,
}

impl Sender {
    pub(crate) fn new(config: &SendingConfig, keyring: Keyring) -> anyhow::Result<Self> {
        Ok(Self {
            client: client::build(config)?,
            guard: Guard {
                addresses: config.addresses.clone(),
                https_only: config.https_only,
            },
            secrets: Secrets::new(keyring),
            timeout: config.timeout,
        })
    }

    /// Makes one attempt. The error is no attempt: nothing was sent, and the receiver isn't to blame.
    pub(crate) async fn attempt(&self, event: &Claimed) -> Result<Attempt, SecretError> {
        let keys = self.keys(event)?;
        let (started_at, start) = (Utc::now(), Instant::now());
        let mut answer = Answer::default();
        let sent = match self.request(event, &keys, started_at) {
            Ok(request) => self.send(request, start + self.timeout, &mut answer).await,
            Err(failure) => Err(failure),
        };
        Ok(Attempt {
            number: event.attempt_count.saturating_add(1),
            started_at,
            took: start.elapsed(),
            status: answer.status,
            response: answer.response,
            retry_after: answer.retry_after,
            failure: sent.err(),
        })
    }

    fn keys(&self, event: &Claimed) -> Result<Vec<Arc<Key>>, SecretError> {
        let sealed = std::iter::once(&event.secret).chain(&event.previous_secret);
        sealed
            .map(|sealed| self.secrets.open(event.webhook_id, sealed))
            .collect()
    }

    fn request(
        &self,
        event: &Claimed,
        keys: &[Arc<Key>],
        at: DateTime<Utc>,
    ) -> Result<Request, Failure> {
        let url = self.guard.admit(&event.webhook_url)?;
        let body = event.body().map_err(|_| Failure::payload())?;
        let mut id = uuid::Uuid::encode_buffer();
        let id = &*event.id.as_hyphenated().encode_lower(&mut id);
        let seconds = at.timestamp();
        let signed = signature(keys.iter().map(Arc::as_ref), id, seconds, &body);
        let mut request = Request::new(Method::POST, url);
        write_headers(
            request.headers_mut(),
            id,
            event.attempt_count.saturating_add(1),
            at,
            &signed,
        );
        *request.body_mut() = Some(body.into());
        Ok(request)
    }

    async fn send(
        &self,
        request: Request,
        deadline: Instant,
        answer: &mut Answer,
    ) -> Result<(), Failure> {
        let deadline = Deadline::from_std(deadline);
        let head = timeout_at(deadline, self.client.execute(request)).await;
        let mut head = head
            .map_err(|_| Failure::no_answer(self.timeout))?
            .map_err(|error| Failure::of_request(&error))?;
        let status = head.status();
        answer.status = Some(status);
        if !status.is_success() {
            let header = head.headers().get(RETRY_AFTER);
            answer.retry_after = header.and_then(|value| policy::retry_after(value, Utc::now()));
        }
        let mut kept = answer::Kept::default();
        let body = timeout_at(deadline, kept.read(&mut head)).await;
        answer.response = kept.into_text();
        if !status.is_success() {
            return Err(Failure::of_status(status));
        }
        body.map_err(|_| Failure::no_end(self.timeout))?
            .map_err(|error| Failure::of_body(&error))
    }
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
