//! Where claims come from. The doorbell tells of new events at once; the poller finds whatever is due.
//! Both take room from one budget before they take anything else, so that what is in memory has a
//! bound, and both claim nothing while outcomes can't be recorded.

mod budget;
mod poll;
mod ring;

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::claim::Claimed;
use runtime::shutdown::Shutdown;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;
use uuid::Uuid;

use crate::flow::{Flow, Work};
use crate::link::Link;
use crate::meters::Reason;
pub(crate) use budget::Budget;
pub(crate) use poll::Poller;
pub(crate) use ring::Ring;

/// The most events of one claim.
const BATCH: usize = 500;

/// What both sources need.
pub(crate) struct Source {
    pub(crate) link: Link,
    pub(crate) flow: Arc<Flow>,
    pub(crate) budget: Budget,
    pub(crate) keeps_up: watch::Receiver<bool>,
    pub(crate) shutdown: Shutdown,
    /// How long a claim lasts.
    pub(crate) claim_time: Duration,
}

impl Source {
    /// Room for at least one claim and at most [`BATCH`]; `None` at the soft stop.
    async fn room(&mut self) -> Option<OwnedSemaphorePermit> {
        let soft = self.shutdown.soft().clone();
        let ready = async {
            // An error means that the recorder has ended, which it does after us.
            let _ = self.keeps_up.wait_for(|keeps_up| *keeps_up).await;
            self.budget.take(BATCH).await
        };
        soft.run_until_cancelled(ready).await
    }

    /// Hands on what was claimed, or gives it back when the dispatcher stops.
    fn hand_on(
        &self,
        events: Vec<Claimed>,
        token: Uuid,
        claimed: Instant,
        mut room: OwnedSemaphorePermit,
    ) {
        let work: Vec<Work> = events
            .into_iter()
            .map_while(|event| {
                let permit = room.split(1)?;
                Some(Work {
                    event,
                    token,
                    claimed,
                    permit,
                })
            })
            .collect();
        self.flow.meters.claimed.increment(work.len() as f64);
        if !self.shutdown.soft().is_cancelled() {
            return self.flow.accept(work);
        }
        for work in work {
            self.flow.give_back(work, Reason::Stopping, Duration::ZERO);
        }
    }

    /// Waits, but not beyond the soft stop.
    async fn pause(&self, pause: Duration) {
        self.shutdown.soft().run_until_cancelled(sleep(pause)).await;
    }
}
