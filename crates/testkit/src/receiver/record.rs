use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::answer::Answer;
use super::signature::{self, Unsigned};
use crate::payload::Payloads;

/// The oldest requests are forgotten beyond so many.
const KEPT: usize = 100_000;
/// What every delivery has.
const EVENT_ID: &str = "x-webhook-event-id";

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// 1 for the first request, and so on; none is left out.
    pub sequence: u64,
    pub method: String,
    pub path: String,
    /// In the order of arrival, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// When the head of the request was there.
    pub arrived: DateTime<Utc>,
    /// Of a delivery whose body is not what the published schema promises: why.
    pub schema_error: Option<String>,
}

impl Received {
    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON. Panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        let body = serde_json::from_slice(&self.body);
        body.unwrap_or_else(|error| panic!("no JSON: {error}: {:?}", self.body))
    }

    /// Checks the Standard Webhooks signature as a receiver with this secret would.
    pub fn verify(&self, secret: &str) -> Result<(), Unsigned> {
        let header = |name| self.header(name).ok_or(Unsigned::Header(name));
        signature::verify(
            secret,
            signature::Signed {
                id: header("webhook-id")?,
                timestamp: header("webhook-timestamp")?,
                signatures: header("webhook-signature")?,
                body: &self.body,
            },
            self.arrived.timestamp(),
        )
    }
}

/// A secret that the receiver was told.
#[derive(Debug, Clone)]
pub struct Secret {
    /// Whose it is: telling another for the same webhook replaces it.
    pub webhook_id: Option<String>,
    pub secret: String,
}

/// What a receiver knows: what came, what to answer, and the secrets it was told.
#[derive(Debug, Default)]
pub struct Record {
    inner: Mutex<Inner>,
    payloads: Payloads,
    /// Requests to the sink, which leaves nothing else behind.
    pub(super) sunk: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    received: VecDeque<Received>,
    scripts: HashMap<String, VecDeque<Answer>>,
    flights: HashMap<String, Flights>,
    secrets: Vec<Secret>,
    schema_error: Option<String>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Flights {
    pub(super) now: usize,
    pub(super) most: usize,
}

impl Record {
    /// From now on, these answers for the path; the last stays. None: back to 200.
    pub fn script(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let answers: VecDeque<_> = answers.into_iter().collect();
        let scripts = &mut self.inner().scripts;
        if answers.is_empty() {
            scripts.remove(path);
        } else {
            scripts.insert(path.to_owned(), answers);
        }
    }

    /// Forgets all that was to be answered.
    pub fn unscript(&self) {
        self.inner().scripts.clear();
    }

    /// The requests that came after that sequence number, 0 for all that are kept.
    pub fn since(&self, sequence: u64) -> Vec<Received> {
        let inner = self.inner();
        let from = inner
            .received
            .partition_point(|request| request.sequence <= sequence);
        inner.received.range(from..).cloned().collect()
    }

    /// Forgets what was received. The sequence goes on.
    pub fn forget(&self) {
        self.inner().received.clear();
        self.sunk.store(0, Ordering::Relaxed);
    }

    /// Keeps a secret to check signatures with.
    pub fn tell(&self, told: Secret) {
        let secrets = &mut self.inner().secrets;
        let same = |known: &Secret| {
            known.secret == told.secret
                || (told.webhook_id.is_some() && known.webhook_id == told.webhook_id)
        };
        secrets.retain(|known| !same(known));
        secrets.push(told);
    }

    /// All secrets told.
    pub fn secrets(&self) -> Vec<Secret> {
        self.inner().secrets.clone()
    }

    /// Of the first delivery that was not what the published schema promises: why, and its body.
    pub fn schema_error(&self) -> Option<String> {
        self.inner().schema_error.clone()
    }

    /// How many requests for the path are unanswered, now and at most.
    pub(super) fn flights(&self, path: &str) -> Flights {
        self.inner().flights.get(path).copied().unwrap_or_default()
    }

    /// Takes a request in and says how to answer it; in flight until the guard is dropped.
    pub(super) fn take(self: &Arc<Self>, mut request: Received) -> (Answer, InFlight) {
        // Whatever else comes is no delivery.
        if request.header(EVENT_ID).is_some() {
            request.schema_error = self.payloads.check(&request.body).err();
        }
        let mut inner = self.inner();
        if let Some(error) = &request.schema_error {
            let body = String::from_utf8_lossy(&request.body);
            let first = || format!("{error}: {body}");
            inner.schema_error.get_or_insert_with(first);
        }
        let path = request.path.clone();
        let flights = inner.flights.entry(path.clone()).or_default();
        flights.now += 1;
        flights.most = flights.most.max(flights.now);
        inner.last += 1;
        request.sequence = inner.last;
        if inner.received.len() == KEPT {
            inner.received.pop_front();
        }
        inner.received.push_back(request);
        let script = inner.scripts.get_mut(&path);
        let answer = script.and_then(|script| match script.len() {
            0 | 1 => script.front().cloned(),
            _ => script.pop_front(),
        });
        (
            answer.unwrap_or_default(),
            InFlight {
                record: Arc::clone(self),
                path,
            },
        )
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct InFlight {
    record: Arc<Record>,
    path: String,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(flights) = self.record.inner().flights.get_mut(&self.path) {
            flights.now -= 1;
        }
    }
}
