//! How a process of Recado lives: it reads its configuration, logs, connects to PostgreSQL and
//! Redis, answers on its ops port, and stops when it is told to. Knows nothing of WhatsApp.

pub mod config;
pub mod http;
pub mod ops;
pub mod postgres;
pub mod redis;
pub mod run;
pub mod shutdown;
pub mod telemetry;
pub mod tls;

pub use run::{Context, Service, run};
