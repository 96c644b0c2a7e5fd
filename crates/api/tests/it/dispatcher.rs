//! A dispatcher's part, played on the real tables: what it claims and what it records.

use chrono::Utc;
use domain::claim::{self, Claimed};
use domain::record::{self, Outcome, Record};
use queue::Listener;
use testkit::eventually;
use uuid::Uuid;

use crate::world::Api;

pub(crate) const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

/// A claim, and the token that it is held under.
pub(crate) struct Held {
    pub(crate) event: Claimed,
    token: Uuid,
}

/// Waits for a ring, and claims what was rung.
pub(crate) async fn claim_rung(api: &Api) -> Held {
    let mut rung = Listener::new(api.redis.client())
        .wait(10, 10 * SECOND)
        .await
        .unwrap();
    claim(api, rung.pop().unwrap()).await
}

pub(crate) async fn claim(api: &Api, event: Uuid) -> Held {
    let token = Uuid::new_v4();
    let claimed = claim::claim(&mut *api.conn().await, &[event], token, 60.0)
        .await
        .unwrap();
    Held {
        event: claimed.into_iter().next().unwrap(),
        token,
    }
}

/// Waits until a circuit is to be probed, and claims the probe.
pub(crate) async fn claim_probe(api: &Api) -> Held {
    let token = Uuid::new_v4();
    let probe = eventually(10 * SECOND, async || {
        claim::claim_probes(&mut *api.conn().await, 10, token, 60.0)
            .await
            .unwrap()
            .pop()
    });
    Held {
        event: probe.await,
        token,
    }
}

/// Records what came of the attempt: a 200, or a 500 that says "oops".
pub(crate) async fn record(api: &Api, held: &Held, outcome: Outcome) {
    let is_delivered = outcome == Outcome::Delivered;
    let record = Record {
        attempt_id: Uuid::now_v7(),
        event_id: held.event.id,
        client_id: held.event.client_id,
        webhook_id: held.event.webhook_id,
        token: held.token,
        attempt: held.event.attempt_count + 1,
        batch_id: None,
        probe: held.event.probe,
        started_at: Utc::now(),
        duration_ms: 12,
        http_status: Some(if is_delivered { 200 } else { 500 }),
        error_class: (!is_delivered).then_some("http_status"),
        error: (!is_delivered).then(|| "answered 500".to_owned()),
        response: Some(if is_delivered { "ok" } else { "oops" }.to_owned()),
        leave_alone: 0.0,
        outcome,
    };
    record::record(&mut *api.conn().await, &[record])
        .await
        .unwrap();
}

/// Claims an event and delivers it.
pub(crate) async fn deliver(api: &Api, event: Uuid) {
    record(api, &claim(api, event).await, Outcome::Delivered).await;
}

/// Claims an event and records an attempt that failed for good.
pub(crate) async fn fail(api: &Api, event: Uuid) {
    record(api, &claim(api, event).await, dead()).await;
}

pub(crate) fn dead() -> Outcome {
    Outcome::Dead {
        reason: "all attempts failed".to_owned(),
        gone: false,
    }
}
