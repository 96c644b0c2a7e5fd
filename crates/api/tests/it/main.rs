//! The API against a real PostgreSQL and Redis: in this process where an answer is what matters, as the
//! real program where its life is.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

mod admin;
mod attachments;
mod auth;
mod bad_input;
mod dead_letters;
mod described;
mod dispatcher;
mod events;
mod gateway;
mod idempotency;
mod isolation;
mod keys;
mod limits;
mod media;
mod media_host;
mod openapi;
mod options;
mod outages;
mod process;
mod replays;
mod requests;
mod samples;
mod schemathesis;
mod sending;
mod sessions;
mod stats;
mod stream;
mod verify;
mod webhooks;
mod world;
