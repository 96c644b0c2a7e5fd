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
    let (mut none, mut ten, mut half) = (vec![], vec![], vec![]);
    for round in 1..=extent.rounds {
        for (hanging, rounds) in [
            (0, &mut none),
            (WEBHOOKS / 10, &mut ten),
            (WEBHOOKS / 2, &mut half),
        ] {
            let measured = steady(&stage, &urls(&stage, hanging), &LOAD).await?;
            println!(
                "round {round}, {hanging} of {WEBHOOKS} hang: {}",
                told(&measured)
            );
            rounds.push(measured);
        }
    }
    let row = |name, rounds: &[Steady]| {
        Row::of(name, "ms", p95s(rounds)).with_note(rounds.last().map(told).unwrap_or_default())
    };
    let ratios = |rounds: &[Steady]| {
        let pairs = p95s(rounds).into_iter().zip(p95s(&none));
        pairs.map(|(some, none)| some / none).collect()
    };
    Ok(vec![
        row(NONE_P95, &none),
        row(TEN_P95, &ten),
        row(HALF_P95, &half),
        Row::of(TEN_RATIO, "", ratios(&ten)),
        Row::of(HALF_RATIO, "", ratios(&half)),
    ])
}

fn p95s(rounds: &[Steady]) -> Vec<f64> {
    let p95 = |round: &Steady| percentile(&round.latencies, 0.95);
    rounds.iter().map(p95).collect()
}

fn told(round: &Steady) -> String {
    let at = |share| percentile(&round.latencies, share);
    format!(
        "p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, {} of {} never arrived; processors busy: {}",
        at(0.5),
        at(0.95),
        at(0.99),
        round.missing,
        round.latencies.len(),
        round.busy
    )
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
