//! PostgreSQL is restarted, crashes, and is away while the gateway is killed: nothing is acknowledged that
//! is not committed, and all go on by themselves.

use std::time::Duration;

use tokio::time::sleep;

use super::stage::Stage;
use crate::servers::Server;

/// How long PostgreSQL is away while people write on, before the gateway is killed as well.
const AWAY: Duration = Duration::from_millis(700);

pub(super) async fn inflict(stage: &mut Stage) -> anyhow::Result<()> {
    for fault in 0..stage.faults {
        stage.moment(fault).await?;
        // The last is always the worst.
        if (stage.faults - fault) % 2 == 1 {
            gone_with_the_gateway(stage, fault % 4 == 0).await?;
        } else if fault % 3 == 0 {
            stage.system.servers.restart(Server::Postgres).await;
        } else {
            stage.crash_postgres().await;
            stage.system.servers.resume(Server::Postgres).await;
        }
    }
    Ok(())
}

async fn gone_with_the_gateway(stage: &mut Stage, in_order: bool) -> anyhow::Result<()> {
    if in_order {
        stage.system.servers.stop(Server::Postgres).await;
    } else {
        stage.crash_postgres().await;
    }
    // Messages come and can't be committed.
    sleep(AWAY).await;
    stage.system.gateways[0].kill().await;
    stage.system.servers.resume(Server::Postgres).await;
    stage.nothing_acked_is_uncommitted().await?;
    stage.system.gateways[0].start_again().await;
    Ok(())
}
