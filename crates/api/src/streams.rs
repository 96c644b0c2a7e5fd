//! Streams that are open, by client. Each one asks the database several times a second, as a request does only once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of one client, on this instance.
pub(crate) const MOST: u32 = 20;

#[derive(Clone, Default)]
pub(crate) struct Streams(Arc<Mutex<HashMap<i32, u32>>>);

/// The room that one takes, until this is dropped.
pub(crate) struct Room {
    streams: Streams,
    client_id: i32,
}

impl Streams {
    /// `None`: the client has as many as it may.
    pub(crate) fn room(&self, client_id: i32) -> Option<Room> {
        let mut open = self.open();
        let count = open.entry(client_id).or_default();
        if *count == MOST {
            return None;
        }
        *count += 1;
        Some(Room {
            streams: self.clone(),
            client_id,
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<i32, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        if let Some(count) = open.get_mut(&self.client_id) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_and_takes_none_of_anothers() {
        let streams = Streams::default();
        let mut held: Vec<Room> = (0..MOST).filter_map(|_| streams.room(1)).collect();
        assert_eq!(held.len(), 20);
        assert!(streams.room(1).is_none());
        assert!(streams.room(2).is_some());
        held.pop();
        assert!(streams.room(1).is_some());
        drop(held);
        assert!(streams.open().is_empty());
    }
}
