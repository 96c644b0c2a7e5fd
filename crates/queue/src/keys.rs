//! Every name that Recado uses in Redis.

/// List of 16-byte event ids, oldest at the left: the dispatchers pop what was just inserted.
pub const EVENTS_DUE: &str = "recado:events:due";

/// Pub/sub channel: the desired state of some connection changed; every gateway looks.
pub const CONNECTIONS: &str = "recado:connections";
