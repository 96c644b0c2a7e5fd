//! Counters since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        #[derive(Default)]
        pub(crate) struct Stats { $($(#[$doc])* pub(crate) $name: Counter),+ }

        impl Stats {
            pub(crate) fn to_json(&self) -> Value {
                json!({ $(stringify!($name): self.$name.get()),+ })
            }
        }
    };
}

counters! {
    connections_accepted,
    connections_refused,
    /// Ended or left in silence at a step that was asked for.
    connections_spoiled,
    logins,
    logins_rejected,
    /// Messages that contacts wrote.
    messages_sent,
    /// Stanzas that carried them to devices, redeliveries included.
    deliveries,
    /// Those that were sent from the offline queue.
    redeliveries,
    receipts,
    receipts_dropped,
    retry_receipts,
    /// Messages sent again, encrypted anew.
    resends,
    outbox_messages,
    outbox_undecryptable,
    stanzas_in,
    stanzas_out,
}
