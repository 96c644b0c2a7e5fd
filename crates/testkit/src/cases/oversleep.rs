//! What becomes of the claims of a dispatcher that stands still.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use uuid::Uuid;

use crate::eventually;
use crate::system::Records;
use crate::system::records::Claim;

/// A claim that was last seen with less than this left, in seconds, has run out: an attempt in time would
/// have ended long before.
const RUN_OUT: f64 = 1.0;
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks, which cost PostgreSQL something.
const PAUSE: Duration = Duration::from_millis(150);

/// Waits until none of the claims that are out now stands any more, and returns the events of those that
/// had run out before another took their place. The others were of dispatchers that are awake.
///
/// `stopped`: when the sleeper was. PostgreSQL may go away meanwhile.
pub(super) async fn until_taken(database_url: &str, stopped: Instant) -> Vec<Uuid> {
    let mut look = Look::default();
    eventually(PATIENCE, async || {
        sleep(PAUSE).await;
        let looked = look.once_more(database_url, stopped).await;
        looked.unwrap_or_else(|error| Err(format!("{error:#}")))
    })
    .await;
    let seen = look.left.into_iter().flatten();
    seen.filter(|(_, seconds)| *seconds < RUN_OUT)
        .map(|((event, _), _)| event)
        .collect()
}

#[derive(Default)]
struct Look {
    records: Option<Records>,
    /// Of each claim, by event and token, that was out at first: the time that it was last seen to have
    /// left, in seconds.
    left: Option<HashMap<(Uuid, Uuid), f64>>,
}

impl Look {
    async fn once_more(
        &mut self,
        database_url: &str,
        stopped: Instant,
    ) -> anyhow::Result<Result<(), String>> {
        let mut records = match self.records.take() {
            Some(records) => records,
            None => Records::connect(database_url).await?,
        };
        // What was said to PostgreSQL before the stop may make claims yet.
        let at_work =
            self.left.is_none() && records.is_at_work(stopped.elapsed().as_secs_f64()).await?;
        let seen = match at_work {
            true => Err("a statement runs that began before the stop".to_owned()),
            false => self.note(&records.claims().await?),
        };
        self.records = Some(records);
        Ok(seen)
    }

    /// An error while any claim of the first look stands.
    fn note(&mut self, claims: &[Claim]) -> Result<(), String> {
        let now = claims
            .iter()
            .map(|claim| ((claim.event_id, claim.token), claim.seconds_left));
        let Some(first) = &mut self.left else {
            self.left = Some(now.collect());
            return Err("the first look".to_owned());
        };
        let mut standing = 0;
        for (claim, seconds) in now {
            if let Some(known) = first.get_mut(&claim) {
                *known = seconds;
                standing += 1;
            }
        }
        match standing {
            0 => Ok(()),
            _ => Err(format!("{standing} claims stand that were out at the stop")),
        }
    }
}
