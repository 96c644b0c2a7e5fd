//! What linked devices sent to contacts, as the contacts' phones read it.

use std::sync::Mutex;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use waproto::whatsapp::Message;

use crate::base64_bytes;
use crate::journal::Batch;

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) device: u16,
    /// The contact's number; in a group, of the member who read it first.
    pub(crate) to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// `text`, or `other` for what has no text.
    pub(crate) r#type: String,
    pub(crate) text: Option<String>,
    /// The decrypted protobuf.
    #[serde(with = "base64_bytes")]
    pub(crate) content: Vec<u8>,
    /// Encrypted anew, because somebody asked for it.
    #[serde(default)]
    pub(crate) again: bool,
    pub(crate) sent_at: String,
}

#[derive(Default)]
pub(crate) struct Outbox {
    sent: Mutex<All>,
}

#[derive(Default)]
struct All {
    next: u64,
    sent: Vec<Sent>,
}

impl Outbox {
    pub(crate) fn add(&self, sent: Sent, batch: &mut Batch) {
        let mut all = self.sent.lock().expect("no panic here");
        batch.put_json(&format!("outbox/{:012}", all.next), &sent);
        all.next += 1;
        all.sent.push(sent);
    }

    /// The journal's entries, in order of their numbers.
    pub(crate) fn restore(&self, number: &str, value: &[u8]) -> Result<()> {
        let mut all = self.sent.lock().expect("no panic here");
        all.next = number.parse::<u64>()? + 1;
        all.sent.push(serde_json::from_slice(value)?);
        Ok(())
    }

    /// What the account has sent under that id.
    pub(crate) fn find(&self, from: &str, id: &str) -> Option<Sent> {
        let all = self.sent.lock().expect("no panic here");
        let mut newest_first = all.sent.iter().rev();
        newest_first
            .find(|sent| sent.id == id && sent.from == from)
            .cloned()
    }

    pub(crate) fn list(&self, from: Option<&str>) -> Vec<Sent> {
        let all = self.sent.lock().expect("no panic here");
        let wanted = all
            .sent
            .iter()
            .filter(|sent| from.is_none_or(|from| sent.from == from));
        wanted.cloned().collect()
    }
}

/// The text of a message that has one.
pub(crate) fn text_of(message: &Message) -> Option<String> {
    let extended = || message.extended_text_message.as_option()?.text.clone();
    message.conversation.clone().or_else(extended)
}
