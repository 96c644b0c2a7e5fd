//! The queries, against a real PostgreSQL.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

mod claims;
mod connections;
mod inbox;
mod migrations;
mod parking;
mod partitions;
mod records;
mod replays;
mod verify;
mod webhooks;
mod world;
