//! A WhatsApp server double: the multi-device protocol over WebSocket at `/ws/chat`, and a
//! control API under `/admin` on the same port.
//!
//! Everything it knows lives in one [`World`](world::World); [`Simulator`] is that world with a
//! port. Two of them run side by side in one process.

mod account;
mod admin;
mod base64_bytes;
mod calls;
mod connection;
mod delivery;
mod device;
mod device_list;
mod faults;
mod groups;
mod handset;
mod handshake;
mod iq;
mod journal;
mod ledger;
mod media;
mod noise;
mod offline;
mod outbox;
mod pairing;
mod presence;
mod ratchets;
mod receipts;
mod router;
mod server;
mod session;
mod stanza;
mod stats;
mod world;

pub use server::{Config, Simulator};
