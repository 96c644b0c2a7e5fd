//! The dispatcher against a real PostgreSQL, a real Redis, and receivers that misbehave.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

mod bad_receivers;
mod batches;
mod circuits;
mod deliveries;
mod failures;
mod inline;
mod isolation;
mod libraries;
mod order;
mod outages;
mod rates;
mod signals;
mod start;
mod upkeep;
mod world;
