use super::{Extent, urls};
use crate::drain::{Backlog, Drained, drain, typical};
use crate::report::Row;
use crate::stage::Stage;

pub(super) const ROWS: [&str; 3] = [WEBHOOKS_LOSS, HOSTS_LOSS, RSS];
const WEBHOOKS_LOSS: &str = "webhooks_1000_loss_pct";
const HOSTS_LOSS: &str = "hosts_1000_loss_pct";
const RSS: &str = "dispatcher_rss_mib_1000_hosts";
const MANY: u16 = 1000;

/// Drains a backlog for one webhook, for many on one host, and for many on a host each, in turn.
pub(super) async fn measure(extent: &Extent) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(MANY).await?;
    let webhooks = urls(&stage, MANY.into());
    let hosts: Vec<_> = (0..MANY)
        .map(|number| stage.sink.url_at(number, "/hook"))
        .collect();
    let (mut one, mut many, mut far) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=extent.rounds {
        for (what, urls, rounds) in [
            ("one webhook", &webhooks[..1], &mut one),
            ("1000 webhooks", &webhooks[..], &mut many),
            ("1000 hosts", &hosts[..], &mut far),
        ] {
            let backlog = Backlog {
                urls,
                events: extent.events,
                dispatchers: 1,
            };
            let drained = drain(&stage, &backlog).await?;
            println!("round {round}, {what}: {drained}");
            rounds.push(drained);
        }
    }
    Ok(vec![
        Row::of(WEBHOOKS_LOSS, "%", losses(&one, &many)).with_note(note(&one, &many)),
        Row::of(HOSTS_LOSS, "%", losses(&one, &far)).with_note(note(&one, &far)),
        Row::of(RSS, "MiB", far.iter().map(|one| one.peak_mib).collect()),
    ])
}

/// Percent, of each round; less than none where many are faster.
fn losses(one: &[Drained], many: &[Drained]) -> Vec<f64> {
    let pairs = one.iter().zip(many);
    pairs
        .map(|(one, many)| 100.0 * (1.0 - many.per_second / one.per_second))
        .collect()
}

fn note(one: &[Drained], many: &[Drained]) -> String {
    let (one, many) = (typical(one), typical(many));
    format!(
        "one webhook {:.0}/s, {}; many {:.0}/s, {}",
        one.per_second,
        one.bound(),
        many.per_second,
        many.bound()
    )
}
