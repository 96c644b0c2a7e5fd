//! Messages that PostgreSQL takes in no form, until it does.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::group::Item;

const PAUSE: Duration = Duration::from_secs(15);
const MANY: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Stuck {
    items: VecDeque<Item>,
    again: Option<Instant>,
}

impl Stuck {
    pub(super) fn add(&mut self, item: Item) {
        self.items.push_back(item);
        self.again.get_or_insert_with(|| Instant::now() + PAUSE);
        self.show();
    }

    /// So many that rows can hardly be at fault: what is behind them in their chats should stay with WhatsApp.
    pub(super) fn are_many(&self) -> bool {
        self.items.len() >= MANY
    }

    /// When to try next; far away when there is nothing to try.
    pub(super) fn due(&self) -> Instant {
        self.again
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    pub(super) fn is_due(&self) -> bool {
        self.again.is_some_and(|again| again <= Instant::now())
    }

    /// All of them, oldest first, when it is time; what fails again is added again.
    pub(super) fn take_due(&mut self) -> VecDeque<Item> {
        if !self.is_due() {
            return VecDeque::new();
        }
        self.again = None;
        let items = std::mem::take(&mut self.items);
        self.show();
        items
    }

    fn show(&self) {
        metrics::gauge!("recado_gateway_stuck").set(self.items.len() as f64);
    }
}
