//! The gateway is killed in the middle of its work: what it acknowledged is in PostgreSQL, and the rest
//! comes again.

use super::stage::Stage;

pub(super) async fn inflict(stage: &mut Stage) -> anyhow::Result<()> {
    for fault in 0..stage.faults {
        stage.moment(fault).await?;
        stage.system.gateways[0].kill().await;
        stage.nothing_acked_is_uncommitted().await?;
        stage.system.gateways[0].start_again().await;
    }
    Ok(())
}
