//! How long accounts were not connected, as WhatsApp sees it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

use crate::system::Phones;

/// What is measured is exact to this.
const LOOK: Duration = Duration::from_millis(50);

/// Looks at all accounts, in the background.
pub(super) struct Absences {
    task: JoinHandle<anyhow::Result<Away>>,
    end: Arc<AtomicBool>,
}

/// The longest absence of each account that had one.
#[derive(Debug, Default)]
pub(super) struct Away(HashMap<String, Duration>);

impl Absences {
    pub(super) fn watch(phones: &Phones) -> Self {
        let (phones, end) = (phones.clone(), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&end);
        let task = tokio::spawn(async move {
            let (mut since, mut away) = (HashMap::<String, Instant>::new(), Away::default());
            let mut look = interval(LOOK);
            while !ended.load(Ordering::Relaxed) {
                look.tick().await;
                let now = Instant::now();
                for account in phones.accounts().await? {
                    if account.online {
                        since.remove(&account.phone);
                    } else {
                        let absent = now - *since.entry(account.phone.clone()).or_insert(now);
                        let longest = away.0.entry(account.phone).or_default();
                        *longest = absent.max(*longest);
                    }
                }
            }
            Ok(away)
        });
        Self { task, end }
    }

    pub(super) async fn end(self) -> anyhow::Result<Away> {
        self.end.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

impl Away {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn longest(&self) -> Duration {
        self.0.values().max().copied().unwrap_or_default()
    }
}
