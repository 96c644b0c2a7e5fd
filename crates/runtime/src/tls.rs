//! TLS is rustls with ring, for PostgreSQL, Redis and HTTP alike.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// Makes ring the process's TLS provider. [`crate::run`] calls it; a test that speaks TLS, or
/// builds a `reqwest` client, calls it itself. Calling it again does nothing.
pub fn install_provider() {
    // Err means that a provider is installed already, and ring is the only one in the tree.
    let _ = ring::default_provider().install_default();
}

/// For hosts of the internet: trusts the certificates of the system, or Mozilla's (built in) where the
/// system has none.
pub fn to_outside() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
