//! Redis is away for some seconds, stopped in order or crashed: messages are committed, acknowledged and
//! delivered meanwhile.

use std::time::Duration;

use super::stage::Stage;
use crate::eventually;
use crate::servers::Server;

/// So many messages arrive at the receiver while Redis is away.
const PROGRESS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn inflict(stage: &mut Stage) -> anyhow::Result<()> {
    let mut meanwhile = 0;
    // Each takes as long as the poller needs, and the traffic has to last for all of them.
    stage.faults = (stage.faults / 2).max(1);
    for fault in 0..stage.faults {
        stage.moment(fault).await?;
        if fault % 2 == 0 {
            stage.system.servers.stop(Server::Redis).await;
        } else {
            stage.system.servers.crash(Server::Redis).await;
        }
        meanwhile += deliveries_go_on(stage).await?;
        stage.system.servers.resume(Server::Redis).await;
    }
    stage.tell("delivered_meanwhile", meanwhile as u64);
    Ok(())
}

/// Waits for deliveries of what was committed after Redis went.
async fn deliveries_go_on(stage: &Stage) -> anyhow::Result<usize> {
    let postbox = &stage.system.postbox;
    let before = postbox
        .since(0)
        .await?
        .last()
        .map_or(0, |last| last.sequence);
    Ok(eventually(PATIENCE, async || {
        let arrived = postbox
            .since(before)
            .await
            .map_err(|error| format!("{error:#}"))?
            .len();
        if arrived >= PROGRESS {
            Ok(arrived)
        } else {
            Err(format!("{arrived} messages arrived since Redis is away"))
        }
    })
    .await)
}
