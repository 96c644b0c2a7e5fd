//! Processes, ops port, pools, TLS and traces, with the servers real.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

mod life;
mod ops;
mod servers;
mod tls;
mod traces;
