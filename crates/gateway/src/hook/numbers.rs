//! Which numbers stand behind the LIDs of a message, as far as the library knows.

use std::time::Duration;

use tokio::time::timeout;
use whatsapp_rust::{Client, Jid};

use crate::translate::Numbers;

/// What is not in the library's cache is read from PostgreSQL. A number is worth no more than this to a
/// message that waits for its commit.
const PATIENCE: Duration = Duration::from_millis(200);

pub(super) async fn look_up(client: &Client, lids: &[Jid]) -> Numbers {
    let mut numbers = Numbers::default();
    if lids.is_empty() {
        return numbers;
    }
    let reading = timeout(PATIENCE, async {
        for lid in lids {
            if let Ok(Some(entry)) = client.get_lid_pn_entry(lid).await {
                numbers.add(lid, &entry.phone_number);
            }
        }
    });
    // What was found until then is as good as ever.
    let _ = reading.await;
    numbers
}
