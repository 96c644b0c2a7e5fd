//! Every name that Recado uses in Redis.

use std::net::IpAddr;

use uuid::Uuid;

/// List of 16-byte event ids, oldest at the left: the dispatchers pop what was just inserted.
pub const EVENTS_DUE: &str = "recado:events:due";

/// Pub/sub channel. An empty message: the desired state of some connection changed; every gateway looks. A
/// connection's id: there is something to send over it; the gateway that holds it looks.
pub const CONNECTIONS: &str = "recado:connections";

/// The moment that the last request to a webhook with a rate limit was given.
pub fn webhook_rate(webhook: Uuid) -> String {
    format!("recado:rate:webhook:{webhook}")
}

/// Of the requests of a client to the API.
pub fn api_client(client: i32) -> String {
    format!("recado:rate:api:client:{client}")
}

/// Of the requests to the API from an address.
pub fn api_address(address: IpAddr) -> String {
    format!("recado:rate:api:address:{address}")
}

/// The same for a client's limit over all of its webhooks.
pub fn client_rate(client: i32) -> String {
    format!("recado:rate:client:{client}")
}
