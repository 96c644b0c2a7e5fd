use std::time::{Duration, Instant};

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use domain::claim::{self, Claimed};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::Source;
use crate::outage::Outage;

/// Between polls that found nothing.
const IDLE: Duration = Duration::from_millis(500);
/// After a poll that found something, but not all that it had room for.
const BUSY: Duration = Duration::from_millis(50);

/// Claims whatever is due: retries, lost rings, manual retries, and what a dead dispatcher held.
pub(crate) struct Poller {
    source: Source,
    postgres: Outage,
}

/// What one poll found.
struct Found {
    events: Vec<Claimed>,
    set_aside: usize,
}

impl Poller {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            postgres: Outage::new("poller"),
        }
    }

    /// Until the soft stop.
    pub(crate) async fn run(mut self) {
        while let Some(room) = self.source.room().await {
            let pause = self.poll(room).await;
            self.source.pause(pause).await;
        }
    }

    /// One poll; answers how long to wait before the next.
    async fn poll(&mut self, room: OwnedSemaphorePermit) -> Duration {
        let limit = room.num_permits();
        let (token, asked) = (Uuid::new_v4(), Instant::now());
        let seconds = self.source.claim_time.as_secs_f64();
        let look = async |conn: &mut _| look(conn, limit, token, seconds).await;
        let found = match self.source.link.run(look).await {
            Ok(found) => found,
            Err(error) => return self.postgres.failed(error),
        };
        self.postgres.over();
        let meters = &self.source.flow.meters;
        let overdue = found.events.iter().map(|event| event.overdue_seconds);
        meters.oldest_due.set(overdue.fold(0.0, f64::max));
        meters.polled.increment(found.events.len() as u64);
        meters.set_aside.increment(found.set_aside as u64);
        let pause = match found.events.len() {
            claimed if claimed == limit || found.set_aside > 0 => Duration::ZERO,
            0 => IDLE,
            _ => BUSY,
        };
        self.source.hand_on(found.events, token, asked, room);
        pause
    }
}

async fn look(
    conn: &mut AsyncPgConnection,
    limit: usize,
    token: Uuid,
    seconds: f64,
) -> QueryResult<Found> {
    let rows = i64::try_from(limit).unwrap_or(i64::MAX);
    let events = claim::claim_due(conn, rows, token, seconds).await?;
    let set_aside = match events.len() < limit {
        true => claim::set_aside(conn, rows).await?,
        false => 0,
    };
    Ok(Found { events, set_aside })
}
