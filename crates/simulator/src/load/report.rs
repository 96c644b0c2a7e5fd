//! What a run has shown.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::phones::Written;
use super::receiver::Received;

/// So many lost messages are named.
const NAMED: usize = 20;

#[derive(Serialize)]
pub(super) struct Report {
    numbers: usize,
    linking_seconds: f64,
    sent: usize,
    acked: usize,
    /// `null` without a receiver.
    received: Option<usize>,
    /// From the first message to the last that came so far.
    sent_per_second: f64,
    acked_per_second: f64,
    received_per_second: Option<f64>,
    send_to_ack_ms: Option<Spread>,
    send_to_receiver_ms: Option<Spread>,
    unacked: usize,
    undelivered: Option<usize>,
    /// Some of those that were lost.
    lost: Vec<String>,
    duplicates: u32,
}

#[derive(Debug, PartialEq, Serialize)]
struct Spread {
    p50: i64,
    p95: i64,
    p99: i64,
    max: i64,
}

impl Spread {
    fn of(mut values: Vec<i64>) -> Option<Self> {
        values.sort_unstable();
        let max = *values.last()?;
        // The smallest value that so many percent don't exceed.
        let percentile = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100);
            values[rank.saturating_sub(1)]
        };
        Some(Self {
            p50: percentile(50),
            p95: percentile(95),
            p99: percentile(99),
            max,
        })
    }
}

/// How many a second, when the first was sent then and the last one came then.
fn per_second(count: usize, first: i64, last: Option<i64>) -> f64 {
    let seconds = (last.unwrap_or(first) - first).max(1) as f64 / 1_000.0;
    (count as f64 / seconds * 10.0).round() / 10.0
}

impl Report {
    pub(super) fn of(
        sent: &HashMap<String, Vec<String>>,
        ledger: &HashMap<String, Written>,
        received: Option<&Received>,
        linking: Duration,
    ) -> Self {
        let ids: Vec<&String> = sent.values().flatten().collect();
        let known = |id: &&String| ledger.get(*id);
        let first = ids
            .iter()
            .filter_map(known)
            .map(|message| message.sent_at)
            .min();
        let first = first.unwrap_or_default();
        let last_sent = ids
            .iter()
            .filter_map(known)
            .map(|message| message.sent_at)
            .max();
        let acked: Vec<(i64, i64)> = ids
            .iter()
            .filter_map(known)
            .filter_map(|message| Some((message.sent_at, message.acked_at?)))
            .collect();
        let arrived: Option<Vec<(i64, i64)>> = received.map(|received| {
            let times = ids.iter().filter_map(|id| {
                let sent_at = ledger.get(*id)?.sent_at;
                Some((sent_at, received.get(*id)?.0))
            });
            times.collect()
        });
        let was_lost = |id: &&&String| {
            let unacked = known(id).is_none_or(|message| message.acked_at.is_none());
            unacked || received.is_some_and(|received| !received.contains_key(**id))
        };
        let took = |times: &[(i64, i64)]| {
            let took = times.iter().map(|(sent, came)| (came - sent).max(0));
            Spread::of(took.collect())
        };
        let last = |times: &[(i64, i64)]| times.iter().map(|(_, came)| *came).max();
        let again = |received: &Received| {
            let times = ids.iter().filter_map(|id| received.get(*id));
            times.map(|(_, times)| times - 1).sum()
        };
        Self {
            numbers: sent.len(),
            linking_seconds: (linking.as_secs_f64() * 10.0).round() / 10.0,
            sent: ids.len(),
            acked: acked.len(),
            received: arrived.as_ref().map(Vec::len),
            sent_per_second: per_second(ids.len(), first, last_sent),
            acked_per_second: per_second(acked.len(), first, last(&acked)),
            received_per_second: arrived
                .as_ref()
                .map(|arrived| per_second(arrived.len(), first, last(arrived))),
            send_to_ack_ms: took(&acked),
            send_to_receiver_ms: arrived.as_ref().and_then(|arrived| took(arrived)),
            unacked: ids.len() - acked.len(),
            undelivered: arrived.as_ref().map(|arrived| ids.len() - arrived.len()),
            lost: ids
                .iter()
                .filter(was_lost)
                .take(NAMED)
                .map(|id| (*id).clone())
                .collect(),
            duplicates: received.map_or(0, again),
        }
    }

    pub(super) fn nothing_lost(&self) -> bool {
        self.unacked == 0 && self.undelivered.unwrap_or(0) == 0
    }

    pub(super) fn print(&self, json: bool) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            serde_json::to_writer_pretty(&mut out, self)?;
            writeln!(out)?;
            return Ok(());
        }
        let numbers = self.numbers;
        writeln!(
            out,
            "linked        {numbers} numbers in {} s",
            self.linking_seconds
        )?;
        writeln!(
            out,
            "sent          {} at {}/s",
            self.sent, self.sent_per_second
        )?;
        let per_second = self.acked_per_second;
        writeln!(
            out,
            "acknowledged  {} at {per_second}/s{}",
            self.acked,
            in_words(&self.send_to_ack_ms)
        )?;
        if let (Some(received), Some(per_second)) = (self.received, self.received_per_second) {
            let took = in_words(&self.send_to_receiver_ms);
            writeln!(out, "received      {received} at {per_second}/s{took}")?;
        }
        let undelivered = self.undelivered.unwrap_or(0);
        writeln!(
            out,
            "lost          {} unacknowledged, {undelivered} undelivered",
            self.unacked
        )?;
        if !self.lost.is_empty() {
            writeln!(out, "              {}", self.lost.join(" "))?;
        }
        writeln!(out, "duplicates    {}", self.duplicates)?;
        Ok(())
    }
}

fn in_words(spread: &Option<Spread>) -> String {
    let Some(Spread { p50, p95, p99, max }) = spread else {
        return String::new();
    };
    format!(", after p50 {p50} ms, p95 {p95} ms, p99 {p99} ms, max {max} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sent_at: i64, acked_at: Option<i64>) -> Written {
        Written { sent_at, acked_at }
    }

    #[test]
    fn what_is_missing_is_lost_and_what_comes_twice_is_a_duplicate() {
        let ids = ["a", "b", "c"].map(str::to_owned).to_vec();
        let sent = HashMap::from([("1".to_owned(), ids)]);
        let ledger = HashMap::from([
            ("a".to_owned(), written(1_000, Some(1_010))),
            ("b".to_owned(), written(2_000, Some(2_030))),
            ("c".to_owned(), written(3_000, None)),
        ]);
        let received = Received::from([("a".to_owned(), (1_100, 1)), ("c".to_owned(), (3_300, 3))]);
        let report = Report::of(&sent, &ledger, Some(&received), Duration::ZERO);
        assert_eq!((report.unacked, report.undelivered), (1, Some(1)));
        assert_eq!(report.lost, ["b", "c"]);
        assert_eq!(report.duplicates, 2);
        assert!(!report.nothing_lost());
        let spread = report.send_to_receiver_ms.unwrap();
        assert_eq!((spread.p50, spread.max), (100, 300));
        let without = Report::of(&sent, &ledger, None, Duration::ZERO);
        assert_eq!((without.undelivered, without.received), (None, None));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let spread = Spread::of((1..=200).collect()).unwrap();
        assert_eq!(
            (spread.p50, spread.p95, spread.p99, spread.max),
            (100, 190, 198, 200)
        );
        assert_eq!(Spread::of(vec![7]).unwrap().p50, 7);
        assert_eq!(Spread::of(vec![]), None);
    }
}
