use super::{Extent, urls};
use crate::drain::{Backlog, Drained, baseline, drain, typical};
use crate::report::Row;
use crate::stage::Stage;

pub(super) const ROWS: [&str; 3] = [A, DRAIN, RSS];
const A: &str = "a";
const DRAIN: &str = "drain";
const RSS: &str = "dispatcher_rss_mib_drain";
const WEBHOOKS: usize = 50;

/// Drains a backlog and sends as much by A, in turn.
pub(super) async fn measure(extent: &Extent) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(0).await?;
    let urls = urls(&stage, WEBHOOKS);
    let (mut a, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=extent.rounds {
        let baseline = baseline(&stage, extent.events).await?;
        println!("round {round}, A: {baseline}");
        a.push(baseline);
        let backlog = Backlog {
            urls: &urls,
            events: extent.events,
            dispatchers: 1,
        };
        let drained = drain(&stage, &backlog).await?;
        println!("round {round}, drain: {drained}");
        ours.push(drained);
    }
    let pairs = a.iter().zip(&ours);
    let ratios = pairs.map(|(a, ours)| ours.per_second / a.per_second);
    let rates = |all: &[Drained]| all.iter().map(|one| one.per_second).collect();
    Ok(vec![
        Row::of(A, "/s", rates(&a)).with_note(typical(&a).bound()),
        Row::of(DRAIN, "/s", rates(&ours))
            .with_ratios(ratios.collect())
            .with_note(typical(&ours).bound()),
        Row::of(RSS, "MiB", ours.iter().map(|one| one.peak_mib).collect()),
    ])
}
