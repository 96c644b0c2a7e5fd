use std::collections::{HashMap, HashSet, VecDeque};

use uuid::Uuid;

/// Who is next: clients in turn, and among the lanes of a client those in turn. Each lane stands in it
/// once.
#[derive(Debug, Default)]
pub(super) struct Turns {
    clients: VecDeque<i32>,
    /// Never empty.
    lanes: HashMap<i32, VecDeque<Uuid>>,
    waiting: HashSet<Uuid>,
}

impl Turns {
    pub(super) fn add(&mut self, client: i32, webhook: Uuid) {
        if !self.waiting.insert(webhook) {
            return;
        }
        let lanes = self.lanes.entry(client).or_default();
        if lanes.is_empty() {
            self.clients.push_back(client);
        }
        lanes.push_back(webhook);
    }

    pub(super) fn next(&mut self) -> Option<Uuid> {
        let client = self.clients.pop_front()?;
        let lanes = self.lanes.get_mut(&client)?;
        let webhook = lanes.pop_front()?;
        if lanes.is_empty() {
            self.lanes.remove(&client);
        } else {
            self.clients.push_back(client);
        }
        self.waiting.remove(&webhook);
        Some(webhook)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns_and_their_lanes_among_each_other() {
        let mut turns = Turns::default();
        for (client, lane) in [(1, 11), (1, 12), (1, 13), (2, 21), (1, 11)] {
            turns.add(client, Uuid::from_u128(lane));
        }
        let order: Vec<u128> = std::iter::from_fn(|| turns.next())
            .map(|lane| lane.as_u128())
            .collect();
        assert_eq!(order, [11, 21, 12, 13]);
    }
}
