use super::{Extent, urls};
use crate::drain::{Backlog, drain, typical};
use crate::report::Row;
use crate::stage::Stage;

pub(super) const ROWS: [&str; 1] = [RATIO];
const RATIO: &str = "two_dispatchers_ratio";
const WEBHOOKS: usize = 50;

/// Drains a backlog by one dispatcher and by two, in turn.
pub(super) async fn measure(extent: &Extent) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(0).await?;
    let urls = urls(&stage, WEBHOOKS);
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for round in 1..=extent.rounds {
        for (dispatchers, rounds) in [(1, &mut alone), (2, &mut together)] {
            let backlog = Backlog {
                urls: &urls,
                events: extent.events,
                dispatchers,
            };
            let drained = drain(&stage, &backlog).await?;
            println!("round {round}, dispatchers {dispatchers}: {drained}");
            rounds.push(drained);
        }
    }
    let pairs = alone.iter().zip(&together);
    let ratios = pairs.map(|(one, two)| two.per_second / one.per_second);
    let (one, two) = (typical(&alone), typical(&together));
    let note = format!("one: {}; two: {}", one.bound(), two.bound());
    Ok(vec![Row::of(RATIO, "", ratios.collect()).with_note(note)])
}
