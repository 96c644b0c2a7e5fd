use std::time::{Duration, Instant};

use domain::claim::{self, Claimed};
use domain::parking;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::Source;
use crate::link::LinkError;
use crate::outage::Outage;

/// Between polls that found nothing.
const IDLE: Duration = Duration::from_millis(500);
/// After a poll that found something, but not all that it had room for.
const BUSY: Duration = Duration::from_millis(50);
/// Between polls that find what the doorbell tells of: parked events have a step to make.
const CROWDED: Duration = Duration::from_millis(250);
/// Between two looks at what is parked, while claims follow one another.
const LOOK: Duration = Duration::from_millis(50);
/// Webhooks whose parked events one poll looks at.
const WEBHOOKS: i64 = 100;
/// Probes of one poll.
const PROBES: usize = 50;

/// Claims whatever is due: retries, lost rings, manual retries, and what a dead dispatcher held. Looks
/// after what is parked, too: probes go out, and events flow again.
pub(crate) struct Poller {
    source: Source,
    postgres: Outage,
    /// When it last looked at what is parked.
    looked: Option<Instant>,
}

/// What one poll found.
#[derive(Default)]
struct Found {
    claimed: usize,
    /// Events that are due now, and were not when it began.
    resumed: usize,
    set_aside: usize,
    /// Whether there may be more than it had room for.
    full: bool,
    /// Whether most of it is new, and the doorbell tells of it as well.
    rung: bool,
}

impl Poller {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            postgres: Outage::new("poller"),
            looked: None,
        }
    }

    /// Until the soft stop.
    pub(crate) async fn run(mut self) {
        while let Some(room) = self.source.gate.room().await {
            let pause = match self.poll(room).await {
                Ok(found) => {
                    self.postgres.over();
                    found.pause(self.source.crowd.is_there())
                }
                Err(error) => self.postgres.failed(error),
            };
            self.source.pause(pause).await;
        }
    }

    async fn poll(&mut self, mut room: OwnedSemaphorePermit) -> Result<Found, LinkError> {
        let (mut probes, mut resumed) = (0, 0);
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            probes = self.probes(&mut room).await?;
            let release = async |conn: &mut _| parking::release_parked(conn, WEBHOOKS).await;
            resumed = self.source.link.run(release).await?;
            self.looked = Some(Instant::now());
        }
        let limit = room.num_permits();
        let rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let due = self
            .claim(room, async |conn, token, seconds| {
                claim::claim_due(conn, rows, token, seconds).await
            })
            .await?;
        let set_aside = match due.claimed < limit {
            true => self.set_aside(rows).await?,
            false => 0,
        };
        let meters = &self.source.flow.meters;
        meters.oldest_due.set(due.overdue);
        meters.polled.increment(due.claimed as u64);
        meters.probed.increment(probes as u64);
        meters.resumed.increment(resumed as u64);
        meters.set_aside.increment(set_aside as u64);
        Ok(Found {
            claimed: due.claimed + probes,
            resumed,
            set_aside,
            full: due.claimed == limit || set_aside >= limit,
            rung: due.fresh > due.claimed / 2,
        })
    }

    /// Sends probes on their way; how many.
    async fn probes(&mut self, room: &mut OwnedSemaphorePermit) -> Result<usize, LinkError> {
        // A poll with room for one is for what is due.
        let probes = PROBES.min(room.num_permits() / 2);
        let (Some(room), 1..) = (room.split(probes), probes) else {
            return Ok(0);
        };
        let rows = i64::try_from(probes).unwrap_or(i64::MAX);
        let probes = self
            .claim(room, async |conn, token, seconds| {
                claim::claim_probes(conn, rows, token, seconds).await
            })
            .await?;
        Ok(probes.claimed)
    }

    async fn set_aside(&mut self, rows: i64) -> Result<usize, LinkError> {
        let seconds = self.source.claim_time.as_secs_f64();
        self.source
            .link
            .run(async |conn| {
                let aside = parking::set_aside(conn, rows).await?
                    + parking::park_followers(conn, rows).await?;
                claim::put_off(conn, rows, seconds).await?;
                Ok(aside)
            })
            .await
    }

    /// Claims, and hands on what it got.
    async fn claim(
        &mut self,
        room: OwnedSemaphorePermit,
        claim: impl AsyncFnOnce(
            &mut diesel_async::AsyncPgConnection,
            Uuid,
            f64,
        ) -> diesel::QueryResult<Vec<Claimed>>,
    ) -> Result<Due, LinkError> {
        let (token, asked) = (Uuid::new_v4(), Instant::now());
        let seconds = self.source.claim_time.as_secs_f64();
        let claim = async |conn: &mut _| claim(conn, token, seconds).await;
        let events = self.source.claim(claim).await?;
        let overdue = events.iter().map(|event| event.overdue_seconds);
        let due = Due {
            claimed: events.len(),
            fresh: events.iter().filter(|e| e.attempt_count == 0).count(),
            overdue: overdue.fold(0.0, f64::max),
        };
        self.source.hand_on(events, token, asked, room);
        Ok(due)
    }
}

/// What a claim got.
struct Due {
    claimed: usize,
    /// Those that were never attempted.
    fresh: usize,
    /// Seconds for which the oldest had been due.
    overdue: f64,
}

impl Found {
    /// New events that have become due before the doorbell has come to them are left to it as far as may be:
    /// its claims cost less, and what we claim it would ring for nothing.
    fn pause(&self, crowded: bool) -> Duration {
        if self.full {
            match crowded && self.rung && self.resumed == 0 {
                true => CROWDED,
                false => Duration::ZERO,
            }
        } else if self.claimed + self.resumed + self.set_aside > 0 {
            BUSY
        } else {
            IDLE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poller_takes_its_time_where_nothing_is_due_or_the_doorbell_gets_through_it() {
        let found = |claimed, full, rung, resumed| Found {
            claimed,
            full,
            rung,
            resumed,
            ..Found::default()
        };
        for (found, crowded, pause) in [
            (found(500, true, true, 0), false, Duration::ZERO),
            (found(500, true, true, 0), true, CROWDED),
            // What nobody rings for doesn't wait.
            (found(500, true, false, 0), true, Duration::ZERO),
            (found(500, true, true, 16), true, Duration::ZERO),
            (found(0, true, false, 0), true, Duration::ZERO),
            (found(16, false, false, 16), false, BUSY),
            (found(3, false, true, 0), true, BUSY),
            (found(0, false, false, 0), false, IDLE),
        ] {
            assert_eq!(found.pause(crowded), pause);
        }
    }
}
