//! TLS is rustls with ring, for PostgreSQL, Redis and HTTP alike.

/// Makes ring the process's TLS provider. [`crate::run`] calls it; a test that speaks TLS, or
/// builds a `reqwest` client, calls it itself. Calling it again does nothing.
pub fn install_provider() {
    // Err means that a provider is installed already, and ring is the only one in the tree.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
