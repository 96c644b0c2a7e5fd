//! Dispatchers are killed with deliveries in flight; some stay away while the other goes on.

use std::time::Duration;

use super::stage::Stage;

/// The receiver answers late, so that there are always deliveries in flight.
const ANSWER_AFTER: Duration = Duration::from_millis(40);

pub(super) async fn inflict(stage: &mut Stage) -> anyhow::Result<()> {
    stage.answer_late(ANSWER_AFTER).await?;
    let mut away = None;
    for fault in 0..stage.faults {
        stage.moment(fault).await?;
        let victim = fault % stage.system.dispatchers.len();
        stage.system.dispatchers[victim].kill().await;
        // Every other one is missed until the next falls: then for a moment nobody delivers.
        if let Some(missed) = away.take() {
            restart(stage, missed).await;
            restart(stage, victim).await;
        } else {
            away = Some(victim);
        }
    }
    if let Some(missed) = away {
        restart(stage, missed).await;
    }
    Ok(())
}

async fn restart(stage: &mut Stage, number: usize) {
    stage.system.dispatchers[number].start_again().await;
}
