//! Streams that are open, and how far what happens is to be told to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::feed::Horizon;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::database::Database;
use crate::error::ApiError;

/// Of one client, on this instance.
pub(crate) const OF_CLIENT: usize = 20;
/// Of all clients, on this instance: each one asks the database for what happened.
const OF_ALL: usize = 500;
/// Between two looks at how far all is to be seen.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);
/// Before the database is asked again, when it did not answer.
pub(crate) const OUTAGE: Duration = Duration::from_secs(2);

#[derive(Clone, Default)]
pub(crate) struct Streams(Arc<Inner>);

#[derive(Default)]
struct Inner {
    open: Mutex<HashMap<i32, usize>>,
    /// Rung when there is one where there was none.
    some: Notify,
    /// The number up to which all is to be seen; `None` while nobody looks.
    reached: watch::Sender<Option<i64>>,
}

/// Why there is no room for another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Full {
    OfClient,
    OfAll,
}

/// The room that one takes, until this is dropped.
pub(crate) struct Room {
    streams: Streams,
    client_id: i32,
}

impl Streams {
    pub(crate) fn room(&self, client_id: i32) -> Result<Room, Full> {
        let mut open = self.open();
        if open.values().sum::<usize>() >= OF_ALL {
            return Err(Full::OfAll);
        }
        let count = open.entry(client_id).or_default();
        if *count >= OF_CLIENT {
            return Err(Full::OfClient);
        }
        *count += 1;
        self.0.some.notify_one();
        Ok(Room {
            streams: self.clone(),
            client_id,
        })
    }

    /// How far all is to be seen, for one that is open.
    pub(crate) fn reached(&self) -> watch::Receiver<Option<i64>> {
        self.0.reached.subscribe()
    }

    /// Looks how far all is to be seen, whenever there is a stream.
    pub(crate) async fn look(self, database: Database) {
        let mut horizon = Horizon::default();
        loop {
            while self.open().is_empty() {
                // What was reached by now says nothing about what there is when one begins.
                (horizon, _) = (Horizon::default(), self.0.reached.send_replace(None));
                self.0.some.notified().await;
            }
            let looked = async {
                let mut conn = database.connection().await?;
                Ok::<_, ApiError>(horizon.look(&mut conn).await?)
            };
            match looked.await {
                Ok(reached) => {
                    self.0.reached.send_replace(reached);
                    sleep(PAUSE).await;
                }
                Err(_) => sleep(OUTAGE).await,
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<i32, usize>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut held: Vec<Room> = (0..OF_CLIENT).map_while(|_| streams.room(1).ok()).collect();
        assert_eq!(held.len(), 20);
        assert_eq!(streams.room(1).err(), Some(Full::OfClient));
        assert!(streams.room(2).is_ok());
        held.pop();
        assert!(streams.room(1).is_ok());
        held.extend((2..).map_while(|client| streams.room(client).ok()));
        assert_eq!(held.len(), 500);
        assert_eq!(streams.room(1).err(), Some(Full::OfAll));
        drop(held);
        assert!(streams.open().is_empty());
    }
}
