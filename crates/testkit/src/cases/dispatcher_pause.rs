//! A dispatcher stands still with deliveries in flight until its claims have run out and another has taken
//! them. Then it goes on: what it brings is on record as superseded, and changes nothing.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::time::sleep;
use uuid::Uuid;

use super::Scale;
use super::oversleep::until_taken;
use super::stage::Stage;
use crate::eventually;
use crate::system::Records;

/// The receiver answers late, so that there are always deliveries in flight.
const ANSWER_AFTER: Duration = Duration::from_millis(400);
/// What one pause takes, in seconds: a whole claim, and until another dispatcher has polled.
const PAUSE: f64 = 22.0;
/// The traffic before and in the last pause, in seconds.
const LAST: f64 = 10.0;
/// A claim that is so old has been sent.
const UNDER_WAY: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(60);
/// A dispatcher that is stopped may just then have nothing in hand.
const TRIES: usize = 10;

/// Fewer pauses, and traffic until the last of them.
pub(super) fn fitted(scale: &Scale) -> Scale {
    let faults = scale.faults.div_ceil(2).max(1);
    let seconds = (faults - 1) as f64 * PAUSE + LAST;
    Scale {
        faults,
        rate: scale.rate.min(scale.messages as f64 / seconds),
        ..scale.clone()
    }
}

pub(super) async fn inflict(stage: &mut Stage) -> anyhow::Result<()> {
    stage.answer_late(ANSWER_AFTER).await?;
    let mut records = stage.system.records().await?;
    let mut taken = 0;
    for fault in 0..stage.faults {
        stage.moment(fault).await?;
        let sleeper = fault % stage.system.dispatchers.len();
        // The last one wakes when all is decided; the one before it while another attempt is under way.
        let wakes_late = (stage.faults - fault) % 2 == 1;
        let overslept = sleep_too_long(stage, sleeper, wakes_late, &mut records).await?;
        taken += overslept.len();
        stage.overslept(overslept);
    }
    stage.tell("overslept", taken as u64);
    Ok(())
}

/// Stops a dispatcher until what it held has been taken from it, or also decided. Returns these events.
async fn sleep_too_long(
    stage: &mut Stage,
    sleeper: usize,
    wakes_late: bool,
    records: &mut Records,
) -> anyhow::Result<Vec<Uuid>> {
    let mut overslept = Vec::new();
    for _ in 0..TRIES {
        something_is_in_flight(records).await;
        let dispatcher = &stage.system.dispatchers[sleeper];
        dispatcher.freeze().await;
        let stopped = Instant::now();
        overslept = until_taken(stage.system.servers.database_url(), stopped).await;
        if wakes_late {
            decided(records, &overslept).await;
        }
        dispatcher.thaw();
        if !overslept.is_empty() {
            break;
        }
    }
    ensure!(
        !overslept.is_empty(),
        "a dispatcher was stopped {TRIES} times and never held a claim: the case tried nothing"
    );
    Ok(overslept)
}

/// Waits until a claim is out that was out a moment ago: its request is under way.
async fn something_is_in_flight(records: &mut Records) {
    let mut before = HashSet::new();
    eventually(PATIENCE, async || {
        let claims = records
            .claims()
            .await
            .map_err(|error| format!("{error:#}"))?;
        let now: HashSet<_> = claims.iter().map(|claim| claim.token).collect();
        let is_in_flight = !now.is_disjoint(&before);
        before = now;
        match is_in_flight {
            true => Ok(()),
            false => {
                sleep(UNDER_WAY).await;
                Err("nothing is under way".to_owned())
            }
        }
    })
    .await;
}

/// Waits until nobody has any of these in hand.
async fn decided(records: &mut Records, events: &[Uuid]) {
    eventually(PATIENCE, async || {
        let claims = records.claims().await;
        let claims = claims.map_err(|error| format!("{error:#}"))?;
        let held = claims
            .iter()
            .filter(|claim| events.contains(&claim.event_id));
        match held.count() {
            0 => Ok(()),
            held => Err(format!("{held} events are being attempted")),
        }
    })
    .await;
}
