//! Ports for processes that can't be asked which one the system chose for them.

use std::net::{Ipv4Addr, TcpListener};

use rand::RngExt;

/// A TCP port of 127.0.0.1 that nobody listens on. It lies below the range from which systems
/// take ports for outgoing connections, so that nothing but another caller of this can take it
/// meanwhile, and that is unlikely.
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    for _ in 0..1000 {
        let port = random.random_range(10_000..32_768);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port among a thousand");
}
