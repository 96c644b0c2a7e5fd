//! The doorbell against a real Redis.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

mod connections;
mod events;
mod faults;
