//! Holds WhatsApp's multi-device sessions: receives for each connection, and acknowledges a message once it
//! is committed.

pub mod store;
