use serde::{Deserialize, Deserializer};

use utoipa::ToSchema;

use super::numbers::{bounded, within};

/// How many events one request may carry, and how long the first of them waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct Batch {
    max_events: MaxEvents,
    max_wait_ms: MaxWait,
}

bounded! {
    MaxEvents = 2..=500;
    /// In milliseconds.
    MaxWait = 0..=60_000;
}

impl Batch {
    pub(crate) fn max_events(self) -> i32 {
        self.max_events.0
    }

    pub(crate) fn max_wait_ms(self) -> i32 {
        self.max_wait_ms.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_batch_has_both_of_its_bounds_and_nothing_else() {
        let batch: Batch = from_value(json!({"max_events": 500, "max_wait_ms": 0})).unwrap();
        assert_eq!((batch.max_events(), batch.max_wait_ms()), (500, 0));
        for value in [
            json!({}),
            json!({"max_events": 10}),
            json!({"max_wait_ms": 10}),
            json!({"max_events": 1, "max_wait_ms": 10}),
            json!({"max_events": 501, "max_wait_ms": 10}),
            json!({"max_events": 10, "max_wait_ms": -1}),
            json!({"max_events": 10, "max_wait_ms": 60_001}),
            json!({"max_events": 10, "max_wait_ms": null}),
            json!({"max_events": 10, "max_wait_ms": 10, "max_bytes": 1}),
            json!(10),
        ] {
            assert!(from_value::<Batch>(value.clone()).is_err(), "{value}");
        }
    }
}
