//! What the tests stand on is tested too.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

mod databases;
mod payloads;
mod processes;
mod receivers;
mod servers;
