//! The dispatcher against a real PostgreSQL, a real Redis, and receivers that misbehave.

mod deliveries;
mod failures;
mod isolation;
mod outages;
mod signals;
mod start;
mod world;
