//! What tests and benches stand on: real databases, a real Redis, real processes, and a webhook
//! receiver that misbehaves on demand. Everything panics when it can't do its job: in a test,
//! that is the answer.

pub mod cases;
pub mod database;
pub mod eventually;
mod freeze;
pub mod kinds;
pub mod media_host;
pub mod panics;
pub mod payload;
pub mod port;
pub mod process;
pub mod receiver;
pub mod redis;
pub mod servers;
pub mod shared;
pub mod system;

pub use database::Database;
pub use eventually::eventually;
pub use media_host::MediaHost;
pub use payload::Payloads;
pub use port::free_port;
pub use process::{Process, Program, binaries};
pub use receiver::{Answer, RawReceiver, Received, Receiver, Step};
pub use redis::RedisDatabase;
pub use rustix::process::{Pid, Signal};
pub use servers::{Server, Servers};
