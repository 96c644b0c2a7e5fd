//! What exists in Recado, and the queries over it: clients, connections, webhooks, messages, the
//! events they become, the attempts to deliver them.
//!
//! Knows PostgreSQL, and neither HTTP nor Redis. Queries take a connection, never a pool, and every
//! query that a client's request reaches takes the client's id.

// identities and value types
pub mod address;
pub mod event_type;
pub mod ids;
pub mod jid;
pub mod keyring;
pub mod phone;
pub mod recipient;
pub mod scope;
pub mod sealed;
pub mod span;
pub mod token;

// entities
pub mod attempt;
pub mod client;
pub mod client_version;
pub mod connection;
pub mod dead_letter;
pub mod destination;
pub mod event;
pub mod gateway;
pub mod idempotency;
pub mod media;
pub mod message;
pub mod outbox;
pub mod upload;
pub mod webhook;

// one message's way, in order
pub mod claim;
pub mod health;
pub mod inbox;
pub mod lease;
pub mod parking;
pub mod payload;
mod receipt;
pub mod record;
pub mod replay;
pub mod sample;

// all of it, looked at
pub mod feed;
pub mod stats;
pub mod verify;

// the database itself
pub mod failure;
pub mod migration;
pub mod partition;
mod retention;
pub mod schema;
pub mod statement;
