//! Holds WhatsApp's multi-device sessions: receives for each connection, and acknowledges a message once it
//! is committed.

pub mod app;
mod bell;
mod committer;
pub mod config;
mod hook;
mod lock;
mod session;
pub mod store;
mod supervisor;
mod translate;
mod valve;
