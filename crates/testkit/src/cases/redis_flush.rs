//! Redis forgets everything, at random and also when the doorbell was rung and nobody has heard it yet:
//! the poller finds what is due.

use std::time::Duration;

use anyhow::ensure;
use redis::aio::MultiplexedConnection;

use super::stage::Stage;
use crate::eventually;

/// While the dispatcher is held, rings gather; so many are enough.
const RINGS: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn inflict(stage: &mut Stage) -> anyhow::Result<()> {
    let mut redis = stage.system.redis().await?;
    let mut lost = 0;
    for fault in 0..stage.faults {
        stage.moment(fault).await?;
        if fault % 2 == 0 {
            stage.system.dispatchers[0].freeze().await;
            lost += rings(&mut redis).await;
        }
        redis::cmd("FLUSHALL").exec_async(&mut redis).await?;
        stage.system.dispatchers[0].thaw();
    }
    ensure!(lost > 0, "no ring was lost: the case tried nothing");
    stage.tell("rings_lost", lost);
    Ok(())
}

/// Waits until some rings lie there, and counts them.
async fn rings(redis: &mut MultiplexedConnection) -> u64 {
    eventually(PATIENCE, async || {
        let mut all = 0;
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("*")
            .query_async(redis)
            .await
            .map_err(text)?;
        for key in keys {
            let length = redis::cmd("LLEN").arg(key).query_async::<u64>(redis).await;
            all += length.unwrap_or(0);
        }
        if all >= RINGS {
            Ok(all)
        } else {
            Err(format!("{all} rings wait"))
        }
    })
    .await
}

fn text(error: redis::RedisError) -> String {
    error.to_string()
}
