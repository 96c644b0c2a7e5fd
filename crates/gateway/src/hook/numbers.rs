//! Which numbers stand behind the LIDs of a message, as far as the library knows.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use whatsapp_rust::{Client, Jid};

use crate::translate::Numbers;

/// What is not in the library's cache is read from PostgreSQL. Numbers are worth no more than this to messages
/// that wait for their commit.
const PATIENCE: Duration = Duration::from_millis(300);

/// Looks numbers up for one batch.
pub(crate) struct LookUp<'a> {
    client: &'a Client,
    until: Instant,
}

impl<'a> LookUp<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self {
            client,
            until: Instant::now() + PATIENCE,
        }
    }

    /// What is known by then; what is cached always is.
    pub(crate) async fn of(&self, lids: &[Jid]) -> Numbers {
        let mut numbers = Numbers::default();
        for lid in lids {
            let entry = timeout_at(self.until, self.client.get_lid_pn_entry(lid)).await;
            if let Ok(Ok(Some(entry))) = entry {
                numbers.add(lid, &entry.phone_number);
            }
        }
        numbers
    }
}
