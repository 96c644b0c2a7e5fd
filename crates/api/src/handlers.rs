//! What each route does: one file per resource, each with the requests and answers of its calls.

mod attachments;
pub(crate) mod clients;
pub(crate) mod connections;
pub(crate) mod dead_letters;
pub(crate) mod docs;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod media;
pub(crate) mod pairing;
pub(crate) mod replays;
pub(crate) mod samples;
pub(crate) mod secrets;
pub(crate) mod sending;
pub(crate) mod stats;
pub(crate) mod stream;
pub(crate) mod webhooks;
