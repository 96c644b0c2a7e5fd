use std::time::Duration;

use anyhow::ensure;

use super::{Extent, urls};
use crate::percentile::percentile;
use crate::report::Row;
use crate::stage::Stage;
use crate::steady::{Load, steady};

pub(super) const ROWS: [&str; 3] = [P99, RSS, CORES];
const P99: &str = "commit_to_receiver_p99_ms";
const RSS: &str = "dispatcher_rss_mib_500";
const CORES: &str = "dispatcher_cpu_cores_500";
const WEBHOOKS: usize = 50;
const LOAD: Load = Load {
    per_second: 500,
    time: Duration::from_secs(25),
};

/// Messages at a steady rate, from their commit to the receiver.
pub(super) async fn measure(extent: &Extent) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(0).await?;
    let urls = urls(&stage, WEBHOOKS);
    let (mut p99, mut peaks, mut cores, mut note) = (vec![], vec![], vec![], String::new());
    for round in 1..=extent.rounds {
        let round_of = steady(&stage, &urls, &LOAD).await?;
        ensure!(
            round_of.missing == 0,
            "{} events never arrived",
            round_of.missing
        );
        note = format!(
            "p50 {:.2} ms, max {:.2} ms; processors busy: {}",
            percentile(&round_of.latencies, 0.5),
            percentile(&round_of.latencies, 1.0),
            round_of.busy
        );
        p99.push(percentile(&round_of.latencies, 0.99));
        peaks.push(round_of.peak_mib);
        cores.push(round_of.busy.cores("dispatcher-1"));
        println!("round {round}, {}/s: {note}", LOAD.per_second);
    }
    Ok(vec![
        Row::of(P99, "ms", p99).with_note(note),
        Row::of(RSS, "MiB", peaks),
        Row::of(CORES, "cores", cores),
    ])
}
