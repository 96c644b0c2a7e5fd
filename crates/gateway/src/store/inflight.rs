//! Messages that are between the library and PostgreSQL: decrypted, and not yet certain to be kept.
//!
//! One registry serves a process, because a session that was restarted may still have tasks of its
//! predecessor at work.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::patience::Failed;

/// A message's name within its connection: the hash of chat, sender and id as the library gives them,
/// of which each may have any length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    pub fn new(chat: &str, sender: &str, id: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [chat, sender, id] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Registry {
    state: Mutex<State>,
    left: Notify,
}

#[derive(Debug, Default)]
struct State {
    entered: u64,
    connections: HashMap<Uuid, BTreeMap<u64, Vec<Key>>>,
    left_out: HashSet<(Uuid, Key)>,
    /// Rows of messages that are committed, about to be deleted.
    forgotten: HashSet<(Uuid, Key)>,
}

/// Keeps its messages in flight until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Flight {
    registry: Arc<Registry>,
    connection_id: Uuid,
    number: u64,
}

impl Registry {
    /// Marks messages as in flight: until the guard is dropped, a copy of one that comes again is not
    /// acknowledged, and the ratchets that they moved are not made durable.
    pub fn enter(self: &Arc<Self>, connection_id: Uuid, keys: Vec<Key>) -> Flight {
        let mut state = self.state();
        state.entered += 1;
        let number = state.entered;
        state
            .connections
            .entry(connection_id)
            .or_default()
            .insert(number, keys);
        Flight {
            registry: Arc::clone(self),
            connection_id,
            number,
        }
    }

    /// Says that the durability hook passed a message by without committing it, before the hook returns
    /// `Ok` for it: a copy that comes again then counts as settled, not as lost.
    pub fn leave_out(&self, connection_id: Uuid, key: Key) {
        self.state().left_out.insert((connection_id, key));
    }

    pub(super) fn is_left_out(&self, connection_id: Uuid, key: Key) -> bool {
        self.state().left_out.contains(&(connection_id, key))
    }

    pub(super) fn forget_left_out(&self, connection_id: Uuid, keys: &[Key]) {
        let mut state = self.state();
        for key in keys {
            state.left_out.remove(&(connection_id, *key));
        }
    }

    /// Says that rows are to go: from now on they are as good as gone.
    pub(super) fn forget(&self, connection_id: Uuid, keys: &[Key]) {
        let mut state = self.state();
        state
            .forgotten
            .extend(keys.iter().map(|key| (connection_id, *key)));
    }

    /// Says that they are gone, or that they stay.
    pub(super) fn forgot(&self, connection_id: Uuid, keys: &[Key]) {
        let mut state = self.state();
        for key in keys {
            state.forgotten.remove(&(connection_id, *key));
        }
    }

    /// Whether rows are still to be deleted.
    pub fn is_busy_forgetting(&self) -> bool {
        !self.state().forgotten.is_empty()
    }

    pub(super) fn is_forgotten(&self, connection_id: Uuid, key: Key) -> bool {
        self.state().forgotten.contains(&(connection_id, key))
    }

    pub(super) fn holds(&self, connection_id: Uuid, key: Key) -> bool {
        let state = self.state();
        let flights = state.connections.get(&connection_id);
        flights.is_some_and(|flights| flights.values().any(|keys| keys.contains(&key)))
    }

    pub(super) fn is_busy(&self, connection_id: Uuid) -> bool {
        self.state().connections.contains_key(&connection_id)
    }

    /// Waits until what is in flight for the connection now has landed.
    pub(super) async fn settled(
        &self,
        connection_id: Uuid,
        deadline: Instant,
    ) -> Result<(), Failed> {
        let last = self.state().entered;
        let settled = async {
            loop {
                let mut left = std::pin::pin!(self.left.notified());
                // From here on a flight that ends is noticed.
                left.as_mut().enable();
                let landed = match self.state().connections.get(&connection_id) {
                    Some(flights) => flights.range(..=last).next().is_none(),
                    None => true,
                };
                if landed {
                    return;
                }
                left.await;
            }
        };
        tokio::time::timeout_at(deadline, settled)
            .await
            .map_err(|_| Failed::Unreachable("messages wait to be stored before".into()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.registry.state();
        if let Some(flights) = state.connections.get_mut(&self.connection_id) {
            flights.remove(&self.number);
            if flights.is_empty() {
                state.connections.remove(&self.connection_id);
            }
        }
        drop(state);
        self.registry.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn settled_waits_for_what_was_in_flight_and_not_for_what_came_after() {
        let registry = Arc::new(Registry::default());
        let connection = Uuid::new_v4();
        let first = registry.enter(connection, vec![Key::new("c", "s", "1")]);
        let other = registry.enter(Uuid::new_v4(), vec![Key::new("c", "s", "1")]);

        let mut settled = std::pin::pin!(registry.settled(connection, soon()));
        assert!(futures_util::poll!(settled.as_mut()).is_pending());
        let second = registry.enter(connection, vec![Key::new("c", "s", "2")]);
        drop(first);
        settled.await.unwrap();
        assert!(registry.is_busy(connection));
        drop((second, other));
        assert!(!registry.is_busy(connection));
    }

    #[tokio::test]
    async fn settled_gives_up_at_its_deadline() {
        let registry = Arc::new(Registry::default());
        let connection = Uuid::new_v4();
        let _flight = registry.enter(connection, vec![]);
        assert!(registry.settled(connection, Instant::now()).await.is_err());
    }

    #[test]
    fn a_key_tells_chat_sender_and_id_apart() {
        assert_ne!(Key::new("a", "b", "c"), Key::new("ab", "", "c"));
        assert_eq!(Key::new("a", "b", "c"), Key::new("a", "b", "c"));
    }
}
