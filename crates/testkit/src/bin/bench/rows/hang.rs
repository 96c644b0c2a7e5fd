use std::time::Duration;

use super::Extent;
use crate::percentile::percentile;
use crate::report::Row;
use crate::sink::HANG;
use crate::stage::Stage;
use crate::steady::{Load, Steady, steady};

pub(super) const ROWS: [&str; 5] = [NONE_P95, TEN_P95, HALF_P95, TEN_RATIO, HALF_RATIO];
const NONE_P95: &str = "hang_0_p95_ms";
const TEN_P95: &str = "hang_10_p95_ms";
const HALF_P95: &str = "hang_50_p95_ms";
const TEN_RATIO: &str = "hang_10_p95_ratio";
const HALF_RATIO: &str = "hang_50_p95_ratio";
const WEBHOOKS: usize = 50;
/// Longer than an attempt may take, so that what hangs is also given up and tried again.
const LOAD: Load = Load {
    per_second: 500,
    time: Duration::from_secs(20),
};

/// The healthy ones' latency while none, a tenth and a half of all webhooks never answer, in turn.
pub(super) async fn measure(extent: &Extent) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(0).await?;
    let (mut none, mut ten, mut half) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=extent.rounds {
        for (hanging, p95s) in [
            (0, &mut none),
            (WEBHOOKS / 10, &mut ten),
            (WEBHOOKS / 2, &mut half),
        ] {
            let Steady {
                latencies,
                missing,
                busy,
                ..
            } = steady(&stage, &urls(&stage, hanging), &LOAD).await?;
            let p95 = percentile(&latencies, 0.95);
            println!(
                "round {round}, {hanging} of {WEBHOOKS} hang: p50 {:.2} ms, p95 {p95:.2} ms, p99 {:.2} ms, \
                 {missing} of {} had not arrived at last; processors busy: {busy}",
                percentile(&latencies, 0.5),
                percentile(&latencies, 0.99),
                latencies.len(),
            );
            p95s.push(p95);
        }
    }
    let ratios = |p95s: &[f64]| {
        p95s.iter()
            .zip(&none)
            .map(|(p95, none)| p95 / none)
            .collect()
    };
    let (ten_ratios, half_ratios) = (ratios(&ten), ratios(&half));
    Ok(vec![
        Row::of(NONE_P95, "ms", none),
        Row::of(TEN_P95, "ms", ten),
        Row::of(HALF_P95, "ms", half),
        Row::of(TEN_RATIO, "", ten_ratios),
        Row::of(HALF_RATIO, "", half_ratios),
    ])
}

/// So many hang, evenly among the others.
fn urls(stage: &Stage, hanging: usize) -> Vec<String> {
    (0..WEBHOOKS)
        .map(|number| match hangs(number, hanging) {
            true => stage.sink.url(&format!("{HANG}/{number}")),
            false => stage.sink.url(&format!("/hooks/{number}")),
        })
        .collect()
}

fn hangs(number: usize, hanging: usize) -> bool {
    (number + 1) * hanging / WEBHOOKS > number * hanging / WEBHOOKS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_hang_as_should() {
        for hanging in [0, 1, 5, 25, 50] {
            let count = (0..WEBHOOKS)
                .filter(|number| hangs(*number, hanging))
                .count();
            assert_eq!(count, hanging);
        }
    }
}
