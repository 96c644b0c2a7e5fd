//! Holds WhatsApp's multi-device sessions: receives for each connection, and acknowledges a message once it
//! is committed.

pub mod app;
mod backoff;
mod bell;
mod committer;
mod compose;
pub mod config;
mod files;
mod gate;
pub mod hold;
mod hook;
mod occurrence;
mod pace;
mod pulse;
mod session;
pub mod store;
mod supervisor;
mod translate;
pub mod underway;
pub mod valve;
mod version;
