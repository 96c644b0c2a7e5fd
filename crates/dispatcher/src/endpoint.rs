//! What is known of a webhook between its events: its destination, opened and parsed once, until its
//! settings change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use domain::claim::Claimed;
use domain::destination::Destination;
use domain::keyring::Keyring;
use domain::webhook;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ipnet::IpNet;
use queue::{Rate, keys};
use uuid::Uuid;

use crate::deliver::{Client, Clients};
use crate::guard::{Forbidden, Guard};
use crate::inline::Mention;
use crate::lanes::{Batch, Terms};
use crate::sign::{Key, SecretError};

/// What is known is looked up anew after this: a client's rate limit isn't part of the version.
const LASTS: Duration = Duration::from_secs(30);
/// Endpoints that are kept. Beyond that those that are past their time are forgotten, or all.
const KEPT: usize = 20_000;

/// A webhook, ready to be delivered to.
pub(crate) struct Endpoint {
    pub(crate) webhook_id: Uuid,
    pub(crate) max_retries: i32,
    pub(crate) terms: Terms,
    /// Of the webhook and of its client.
    pub(crate) rates: Vec<Rate>,
    /// Where requests go, or why they may not.
    pub(crate) target: Result<Uri, Forbidden>,
    pub(crate) client: Client,
    pub(crate) headers: HeaderMap,
    /// Of the largest file that goes into the delivery itself; 0 is none.
    pub(crate) inline_media_bytes: u64,
    key: Key,
    /// Signs too until that time.
    previous: Option<(Key, Instant)>,
    version: DateTime<Utc>,
    loaded: Instant,
}

impl Endpoint {
    fn open(destination: Destination, opener: &Opener) -> Result<Self, SecretError> {
        let now = Instant::now();
        let id = destination.webhook_id;
        let ranges: Result<Vec<IpNet>, _> = destination
            .allowed_ip_ranges
            .iter()
            .map(|range| range.parse())
            .collect();
        // One that can't be read allows nothing: without any, everything would be allowed.
        let (ranges, unread) = match ranges {
            Ok(ranges) => (ranges, None),
            Err(_) => (Vec::new(), Some(Forbidden::Range)),
        };
        let previous = destination.previous_secret.as_deref().map(|sealed| {
            let seconds = destination.previous_secret_seconds.unwrap_or_default();
            let lasts = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            Ok::<_, SecretError>((opener.key(id, sealed)?, now + lasts))
        });
        Ok(Self {
            webhook_id: id,
            max_retries: destination.max_retries,
            terms: terms(&destination),
            rates: rates(&destination),
            target: match unread {
                None => opener.guard.admit(&destination.webhook_url, &ranges),
                Some(forbidden) => Err(forbidden),
            },
            client: opener.clients.within(ranges),
            headers: match &destination.custom_headers {
                Some(sealed) => headers(&webhook::open_headers(&opener.keyring, id, sealed)?),
                None => HeaderMap::new(),
            },
            inline_media_bytes: u64::try_from(destination.inline_media_bytes).unwrap_or(0),
            key: opener.key(id, &destination.secret)?,
            previous: previous.transpose()?,
            version: destination.version,
            loaded: now,
        })
    }

    /// The file of an event that is to go into the delivery itself, or to be said of that it doesn't.
    pub(crate) fn file_of(&self, event: &Claimed) -> Option<Mention> {
        match self.inline_media_bytes {
            0 => None,
            _ => Mention::find(&event.metadata),
        }
    }

    /// What signs now: the secret, and during a rotation the one before it.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        let previous = self.previous.iter();
        let lasting = previous.filter(|(_, until)| Instant::now() < *until);
        std::iter::once(&self.key).chain(lasting.map(|(key, _)| key))
    }
}

fn terms(destination: &Destination) -> Terms {
    let number = |value: i32| usize::try_from(value).unwrap_or(1).max(1);
    let batch = destination.batch_max_events.map(|events| Batch {
        max_events: number(events),
        max_wait: Duration::from_millis(
            destination
                .batch_max_wait_ms
                .and_then(|wait| u64::try_from(wait).ok())
                .unwrap_or(0),
        ),
    });
    Terms {
        client: destination.client_id,
        max_in_flight: number(destination.max_in_flight),
        batch,
        limited: destination.rate_limit_per_second.is_some()
            || destination.client_rate_limit_per_second.is_some(),
    }
}

fn rates(destination: &Destination) -> Vec<Rate> {
    let rate = |key: String, limit: Option<i32>| {
        let per_second = u32::try_from(limit?).ok()?;
        Some(Rate { key, per_second })
    };
    let webhook = keys::webhook_rate(destination.webhook_id);
    let client = keys::client_rate(destination.client_id);
    rate(webhook, destination.rate_limit_per_second)
        .into_iter()
        .chain(rate(client, destination.client_rate_limit_per_second))
        .collect()
}

/// Those that can be sent: the API takes no others.
fn headers(named: &webhook::Headers) -> HeaderMap {
    named
        .iter()
        .filter_map(|(name, value)| {
            let name: HeaderName = name.parse().ok()?;
            let mut value: HeaderValue = value.parse().ok()?;
            value.set_sensitive(true);
            Some((name, value))
        })
        .collect()
}

/// What turns a destination into an endpoint.
pub(crate) struct Opener {
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) guard: Guard,
    pub(crate) clients: Clients,
}

impl Opener {
    fn key(&self, webhook: Uuid, sealed: &[u8]) -> Result<Key, SecretError> {
        Key::parse(&webhook::open_secret(&self.keyring, webhook, sealed)?)
    }
}

/// The endpoints that are known.
pub(crate) struct Endpoints {
    opener: Opener,
    known: Mutex<HashMap<Uuid, Arc<Endpoint>>>,
}

impl Endpoints {
    pub(crate) fn new(opener: Opener) -> Self {
        Self {
            opener,
            known: Mutex::default(),
        }
    }

    /// The webhooks of these events that have to be looked up, each once.
    pub(crate) fn unknown(&self, events: &[Claimed]) -> Vec<Uuid> {
        let known = self.known();
        let mut unknown: Vec<Uuid> = events
            .iter()
            .filter(|event| {
                known.get(&event.webhook_id).is_none_or(|endpoint| {
                    endpoint.version != event.webhook_version || endpoint.loaded.elapsed() > LASTS
                })
            })
            .map(|event| event.webhook_id)
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    /// Opens what was looked up. One that can't be opened is not known afterwards.
    pub(crate) fn learn(&self, destinations: Vec<Destination>) {
        for destination in destinations {
            let id = destination.webhook_id;
            let opened = Endpoint::open(destination, &self.opener);
            let mut known = self.known();
            match opened {
                Ok(endpoint) => known.insert(id, Arc::new(endpoint)),
                Err(error) => {
                    tracing::error!(webhook = %id, "can't be delivered to: {error}");
                    known.remove(&id)
                }
            };
        }
        let mut known = self.known();
        if known.len() > KEPT {
            known.retain(|_, endpoint| endpoint.loaded.elapsed() <= LASTS);
            if known.len() > KEPT {
                known.clear();
            }
        }
    }

    pub(crate) fn find(&self, webhook: Uuid) -> Option<Arc<Endpoint>> {
        self.known().get(&webhook).map(Arc::clone)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Endpoint>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
