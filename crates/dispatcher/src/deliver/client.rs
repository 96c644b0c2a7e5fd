use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, redirect};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

use crate::config::SendingConfig;
use crate::guard::GuardedResolver;

/// Who says that it calls.
const USER_AGENT: &str = concat!("Recado/", env!("CARGO_PKG_VERSION"));
/// Resolving and connecting may take at most this of an attempt's time.
const CONNECT: Duration = Duration::from_secs(5);
/// An unused connection is closed after this.
const IDLE: Duration = Duration::from_secs(30);
/// Unused connections that are kept for one host, which several webhooks may share.
const IDLE_PER_HOST: usize = 64;

/// The one client: no redirects, no proxy, no address that is forbidden.
pub(super) fn build(config: &SendingConfig) -> anyhow::Result<Client> {
    Client::builder()
        .tls_backend_preconfigured(tls()?)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .dns_resolver(Arc::new(GuardedResolver(config.addresses.clone())))
        .https_only(config.https_only)
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT.min(config.timeout))
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .build()
        .context("the HTTP client")
}

/// Trusts the certificates of the system, or Mozilla's (built in) where the system has none.
fn tls() -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
