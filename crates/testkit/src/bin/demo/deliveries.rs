//! What was sent and what has arrived, shown as it arrives.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::ensure;
use chrono::{DateTime, Utc};
use testkit::eventually;
use testkit::system::System;
use testkit::system::postbox::Arrival;

use crate::terminal::note;

#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    /// When each message was sent, by its id.
    sent: BTreeMap<String, DateTime<Utc>>,
    /// How often each arrived, those too that others sent.
    arrived: BTreeMap<String, usize>,
    unsigned: usize,
    /// Those that are not what the published schema promises.
    odd: usize,
    first: Option<DateTime<Utc>>,
    last: u64,
}

impl Deliveries {
    /// Messages that are to arrive, sent at that time.
    pub(crate) fn expect(&mut self, ids: impl IntoIterator<Item = String>, at: DateTime<Utc>) {
        self.sent.extend(ids.into_iter().map(|id| (id, at)));
    }

    /// Shows what has arrived since the last look.
    pub(crate) async fn look(&mut self, system: &System) -> anyhow::Result<()> {
        for arrival in system.postbox.since(self.last).await? {
            self.last = arrival.sequence;
            self.show(&arrival);
        }
        Ok(())
    }

    /// Waits until all that was sent has arrived.
    pub(crate) async fn wait(&mut self, system: &System, limit: Duration) {
        eventually(limit, async || {
            self.look(system)
                .await
                .map_err(|error| format!("{error:#}"))?;
            match self.lost() {
                0 => Ok(()),
                missing => Err(format!(
                    "{missing} messages have not arrived at the receiver"
                )),
            }
        })
        .await;
    }

    /// From then to the first arrival.
    pub(crate) fn first_after(&self, started: SystemTime) -> Option<Duration> {
        SystemTime::from(self.first?).duration_since(started).ok()
    }

    fn show(&mut self, arrival: &Arrival) {
        let field = |name| arrival.field(name).as_str().unwrap_or_default().to_owned();
        let id = field("message_id");
        let metadata = arrival.field("metadata");
        let chat = metadata["chat"].as_str().unwrap_or_default();
        let kind = if chat.ends_with("@g.us") {
            "group"
        } else {
            "direct"
        };
        let sent = self.sent.get(&id);
        let took = sent.map(|sent| (arrival.received_at - sent).num_milliseconds());
        let took = took
            .map(|took| format!("{took} ms after it was sent, "))
            .unwrap_or_default();
        let signed = arrival.signature_ok == Some(true);
        let signature = if signed {
            "signature ok"
        } else {
            "WRONG SIGNATURE"
        };
        let (from, content) = (field("from"), field("content"));
        note(format_args!("← {kind:6} from {from}: “{content}”"));
        let webhook_id = arrival.webhook_id.as_deref().unwrap_or("missing");
        note(format_args!(
            "         {took}{signature}, webhook-id {webhook_id}"
        ));
        if let Some(error) = &arrival.schema_error {
            note(format_args!(
                "         NOT AS IN docs/payload.schema.json: {error}"
            ));
            self.odd += 1;
        }
        self.unsigned += usize::from(!signed);
        self.first.get_or_insert(arrival.received_at);
        *self.arrived.entry(id).or_default() += 1;
    }

    fn lost(&self) -> usize {
        let lost = self
            .sent
            .keys()
            .filter(|id| !self.arrived.contains_key(*id));
        lost.count()
    }

    fn duplicates(&self) -> usize {
        self.arrived.values().map(|times| times - 1).sum()
    }

    /// An error when something was lost, came twice, was not signed, or has another shape than it should.
    pub(crate) fn assert_whole(&self) -> anyhow::Result<()> {
        let sound = self.unsigned == 0 && self.odd == 0;
        let whole = self.lost() == 0 && self.duplicates() == 0 && sound;
        ensure!(whole, "not as it was promised: {self}");
        Ok(())
    }
}

impl fmt::Display for Deliveries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, lost, duplicates) = (self.sent.len(), self.lost(), self.duplicates());
        let signature = if self.unsigned == 0 { "ok" } else { "WRONG" };
        write!(
            formatter,
            "sent {sent}, delivered {}, lost {lost}, duplicates {duplicates}, signature {signature}",
            sent - lost
        )
    }
}
