//! The HTTP clients: connections that are kept and used again, made to permitted addresses only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ipnet::IpNet;
use runtime::tls;
use rustls::ClientConfig;

use super::connect::{Checks, Guarded, InTime, Lookups};
use crate::guard::Guard;

/// An unused connection is closed after this.
const IDLE: Duration = Duration::from_secs(30);
/// An HTTP/2 connection that many requests share is asked so often whether it lives, and is given up when
/// it doesn't answer in time.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);
/// Bytes of the head of an answer.
const LARGEST_HEAD: usize = 64 * 1024;
/// Headers of an answer.
const MOST_HEADERS: usize = 100;
/// Clients for webhooks with ranges of their own. Beyond that all are made anew.
const KEPT: usize = 1000;

/// Sends requests. Follows no redirects, uses no proxy.
pub(crate) type Client = legacy::Client<InTime<HttpsConnector<Guarded>>, Full<Bytes>>;

/// One client serves all webhooks, but for those that have ranges of their own: a connection that is
/// used again has been checked for whoever made it.
pub(crate) struct Clients {
    guard: Guard,
    lookups: Arc<Lookups>,
    tls: ClientConfig,
    /// Unused connections that are kept for one host, which several webhooks may share.
    idle_per_host: usize,
    connect: Duration,
    shared: Client,
    within: Mutex<HashMap<Vec<IpNet>, Client>>,
}

impl Clients {
    /// `connect` is the time for a connection.
    pub(crate) fn new(
        guard: Guard,
        connect: Duration,
        idle_per_host: usize,
    ) -> anyhow::Result<Self> {
        let (tls, lookups) = (tls::to_outside()?, Arc::default());
        Ok(Self {
            shared: client(&guard, &lookups, Vec::new(), &tls, connect, idle_per_host),
            guard,
            lookups,
            tls,
            idle_per_host,
            connect,
            within: Mutex::default(),
        })
    }

    /// The client for a webhook that may be reached within these ranges only, or anywhere.
    pub(crate) fn within(&self, mut ranges: Vec<IpNet>) -> Client {
        if ranges.is_empty() {
            return self.shared.clone();
        }
        ranges.sort_unstable();
        let mut within = self.within.lock().unwrap_or_else(PoisonError::into_inner);
        if within.len() >= KEPT && !within.contains_key(&ranges) {
            within.clear();
        }
        let client = within.entry(ranges.clone()).or_insert_with(|| {
            client(
                &self.guard,
                &self.lookups,
                ranges,
                &self.tls,
                self.connect,
                self.idle_per_host,
            )
        });
        client.clone()
    }
}

fn client(
    guard: &Guard,
    lookups: &Arc<Lookups>,
    ranges: Vec<IpNet>,
    tls: &ClientConfig,
    connect: Duration,
    idle_per_host: usize,
) -> Client {
    let guarded = Guarded(Arc::new(Checks {
        guard: guard.clone(),
        ranges,
        lookups: Arc::clone(lookups),
    }));
    let secured = HttpsConnectorBuilder::new().with_tls_config(tls.clone());
    let schemes = match guard.https_only {
        true => secured.https_only(),
        false => secured.https_or_http(),
    };
    legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(idle_per_host)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PONG)
        .http1_max_buf_size(LARGEST_HEAD)
        .http1_max_headers(MOST_HEADERS)
        .build(InTime {
            inner: schemes.enable_all_versions().wrap_connector(guarded),
            limit: connect,
        })
}
