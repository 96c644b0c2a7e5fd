//! The protocol store: what the library may expect of any backend, over ours and over its own, and what
//! only ours promises.

mod at_rest;
mod conformance;
mod contents;
mod fencing;
mod outage;
mod pending_inbound;
mod world;
