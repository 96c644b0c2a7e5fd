//! Files of messages, from WhatsApp's media host, decrypted on the way.
//!
//! The media host gives a file to whoever knows its path, so no session and no gateway is needed. What it
//! gives is believed in nothing: [`Download`] holds the end of a file back until all of it was checked.

mod config;
mod decrypt;
mod download;
mod host;
mod place;

pub use config::HostConfig;
pub use decrypt::Tampered;
pub use download::Download;
pub use host::{Error, Host};
