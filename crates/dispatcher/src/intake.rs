//! Where claims come from. The doorbell tells of new events at once; the poller finds whatever is due.
//! Both take room from one budget before they take anything else, so that what is in memory has a
//! bound, and both claim nothing while outcomes can't be recorded.

mod budget;
mod crowd;
mod poll;
mod ring;

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use domain::claim::Claimed;
use domain::destination::Destination;
use runtime::shutdown::Shutdown;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;
use uuid::Uuid;

use crate::endpoint::Endpoints;
use crate::flow::{Flow, Work};
use crate::link::{Link, LinkError};
use crate::meters::Reason;
pub(crate) use budget::Budget;
pub(crate) use crowd::Crowd;
pub(crate) use poll::Poller;
pub(crate) use ring::Ring;

/// The most events of one claim.
const BATCH: usize = 500;

/// What both sources need.
pub(crate) struct Source {
    pub(crate) gate: Gate,
    pub(crate) link: Link,
    pub(crate) flow: Arc<Flow>,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) crowd: Arc<Crowd>,
    /// How long a claim lasts.
    pub(crate) claim_time: Duration,
}

/// What must be open before anything is taken in.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) budget: Budget,
    /// How many recorders get nothing through.
    pub(crate) stuck: watch::Receiver<usize>,
    pub(crate) shutdown: Shutdown,
}

impl Gate {
    /// Room for at least one claim and at most [`BATCH`]; `None` at the soft stop.
    async fn room(&mut self) -> Option<OwnedSemaphorePermit> {
        self.recording().await?;
        let soft = self.shutdown.soft().clone();
        soft.run_until_cancelled(self.budget.take(BATCH)).await
    }

    /// Waits until outcomes can be recorded; `None` at the soft stop.
    async fn recording(&mut self) -> Option<()> {
        let soft = self.shutdown.soft().clone();
        let recording = self.stuck.wait_for(|stuck| *stuck == 0);
        // An error means that the recorders have ended, which they do after us.
        soft.run_until_cancelled(recording).await.map(drop)
    }
}

impl Source {
    /// Claims, and looks up what is not known yet of the webhooks.
    async fn claim(
        &mut self,
        claim: impl AsyncFnOnce(&mut AsyncPgConnection) -> QueryResult<Vec<Claimed>>,
    ) -> Result<Vec<Claimed>, LinkError> {
        let endpoints = &self.endpoints;
        self.link
            .run(async |conn| {
                let events = claim(conn).await?;
                let unknown = endpoints.unknown(&events);
                if !unknown.is_empty() {
                    endpoints.learn(Destination::load(conn, &unknown).await?);
                }
                Ok(events)
            })
            .await
    }

    /// Hands on what was claimed, or gives it back when the dispatcher stops.
    fn hand_on(
        &self,
        events: Vec<Claimed>,
        token: Uuid,
        claimed: Instant,
        mut room: OwnedSemaphorePermit,
    ) {
        let flow = &self.flow;
        flow.meters.claimed.increment(events.len() as f64);
        let mut work = Vec::with_capacity(events.len());
        for event in events {
            let Some(permit) = room.split(1) else { break };
            match self.endpoints.find(event.webhook_id) {
                Some(endpoint) => work.push(Work {
                    file: endpoint.file_of(&event),
                    event,
                    token,
                    claimed,
                    permit,
                    endpoint,
                }),
                None => flow.give_back_faulty(&event, token, permit),
            }
        }
        if !self.gate.shutdown.soft().is_cancelled() {
            return flow.accept(work);
        }
        for work in work {
            flow.give_back(work, Reason::Stopping, Duration::ZERO);
        }
    }

    /// Waits, but not beyond the soft stop.
    async fn pause(&self, pause: Duration) {
        let soft = self.gate.shutdown.soft();
        soft.run_until_cancelled(sleep(pause)).await;
    }
}
