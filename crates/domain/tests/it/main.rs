//! The queries, against a real PostgreSQL.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

mod circuits;
mod claims;
mod connections;
mod cost;
mod idempotency;
mod inbox;
mod keys;
mod leases;
mod ledger;
mod lists;
mod migrations;
mod order;
mod outbox;
mod parking;
mod partitions;
mod peers;
mod protocol;
mod receipts;
mod records;
mod replays;
mod verify;
mod webhooks;
mod world;
