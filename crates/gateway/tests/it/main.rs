//! The gateway, in this process and as a process, against a simulated WhatsApp, a real PostgreSQL and a
//! real Redis.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]
#![recursion_limit = "512"]

mod cost;
mod durability;
mod faults;
mod kinds;
mod media;
mod messages;
mod occurrences;
mod requests;
mod rig;
mod sending;
mod sessions;
mod store;
mod turns;
mod version;
