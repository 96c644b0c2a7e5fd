//! Fetching from hosts outside.

use std::time::Duration;

use anyhow::Context;
use reqwest::ClientBuilder;
use reqwest::redirect::Policy;

use crate::tls;

/// What a connection may take, its TLS handshake included.
const CONNECT: Duration = Duration::from_secs(5);
/// An unused connection is closed after this.
const IDLE: Duration = Duration::from_secs(30);

/// What all who fetch have in common: no redirect is followed, no proxy used. How long an answer may take and
/// how large it may be depends on what is fetched.
pub fn client() -> anyhow::Result<ClientBuilder> {
    let tls = tls::to_outside().context("TLS")?;
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE))
}
