//! What is asked for: who writes what to whom.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::super::{OneOrMany, Refused};
use crate::account::Account;
use crate::delivery::Addressing;
use crate::world::{World, phone_number};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    pub(super) to: String,
    from: OneOrMany,
    #[serde(default)]
    pub(super) r#type: Type,
    /// The text, caption, question, name or emoji, whatever the type has.
    pub(super) text: Option<String>,
    /// `type=raw`: the protobuf of the message, base64.
    pub(super) content: Option<String>,
    /// The message that a reaction, vote, edit, revoke, pin … is about.
    pub(super) target: Option<String>,
    /// What there is to choose from: of a poll, a list, buttons.
    pub(super) options: Option<Vec<String>>,
    /// The message that this one answers, and what stood in it.
    pub(super) quoted: Option<String>,
    pub(super) quoted_text: Option<String>,
    /// Numbers.
    #[serde(default)]
    pub(super) mentions: Vec<String>,
    /// How often it was forwarded.
    pub(super) forwarded: Option<u32>,
    #[serde(default)]
    pub(super) view_once: bool,
    pub(super) ephemeral_seconds: Option<u32>,
    pub(super) stanza_type: Option<String>,
    pub(super) group: Option<String>,
    #[serde(default)]
    pub(super) from_me: bool,
    #[serde(default)]
    pub(super) corrupt: bool,
    #[serde(default)]
    pub(super) addressing: Addressing,
    name: Option<String>,
    pub(super) count: Option<usize>,
    /// Messages a second.
    rate: Option<f64>,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Type {
    #[default]
    Text,
    Image,
    Video,
    Gif,
    VideoNote,
    Audio,
    Voice,
    Document,
    Sticker,
    Album,
    Location,
    LiveLocation,
    Contact,
    Contacts,
    Reaction,
    EncryptedReaction,
    Poll,
    PollVote,
    List,
    ListReply,
    Buttons,
    ButtonReply,
    Template,
    TemplateReply,
    Interactive,
    InteractiveReply,
    Product,
    Order,
    Payment,
    Invite,
    Event,
    EventResponse,
    Edit,
    Revoke,
    Pin,
    Keep,
    EphemeralSetting,
    /// A protobuf with nothing in it but a field that nobody knows.
    Unknown,
    Raw,
}

impl Request {
    pub(super) fn contacts(&self, world: &World) -> Result<Vec<Arc<Account>>, Refused> {
        let numbers = self.from.numbers();
        if numbers.is_empty() {
            return Err(Refused::bad_request("from names nobody"));
        }
        let contact = |number: &String| {
            let number = phone_number(number).map_err(Refused::bad_request)?;
            let contact = world.account(&number).map_err(Refused::bad_request)?;
            if let Some(name) = &self.name {
                contact.change(|standing| standing.name.clone_from(name));
                world.keep(&contact);
            }
            Ok(contact)
        };
        numbers.iter().map(contact).collect()
    }

    pub(super) fn spacing(&self) -> Result<Option<Duration>, Refused> {
        let Some(rate) = self.rate else {
            return Ok(None);
        };
        let spacing = Duration::try_from_secs_f64(1.0 / rate).ok();
        let spacing = spacing.filter(|_| rate > 0.0 && rate.is_finite());
        match spacing {
            Some(spacing) => Ok(Some(spacing)),
            None => Err(Refused::bad_request("rate is messages a second, above 0")),
        }
    }
}
