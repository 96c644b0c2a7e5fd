//! The unmodified upstream client against the simulator, over real sockets.
#![recursion_limit = "512"]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod calls;
mod changes;
mod control;
mod endings;
mod faults;
mod groups;
mod harness;
mod incoming;
mod lid;
mod linking;
mod load;
mod media;
mod outgoing;
mod presence;
mod process;
mod receipts;
mod retries;
mod scale;
mod survival;
