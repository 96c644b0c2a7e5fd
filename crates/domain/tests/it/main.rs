//! The queries, against a real PostgreSQL.

mod claims;
mod connections;
mod inbox;
mod migrations;
mod partitions;
mod records;
mod webhooks;
mod world;
