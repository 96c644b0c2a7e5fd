//! How work is announced: Redis as a doorbell. Nothing here is a record of anything; PostgreSQL
//! has the truth, and whoever is not rung finds its work there a little later.

pub mod doorbell;
pub mod keys;
pub mod listener;
pub mod rate;

pub use doorbell::{Doorbell, RingError};
pub use listener::{ConnectionListener, Listener, News, WaitError};
pub use rate::{Rate, RateLimiter};
