//! What a message says: its type, its text, and what belongs to it beyond that.

use std::borrow::Cow;

use domain::event_type::EventType;
use domain::media::File;
use serde::Serialize;
use serde_json::{Map, Value};
use whatsapp_rust::waproto::whatsapp as wa;

use super::parties::Parties;
use super::wrapper::Unwrapped;
use super::{
    change, contacts, context, event, invite, location, media, menu, payment, poll, reply, setting,
    text, trade,
};

/// A message as a reader sees it.
pub(super) struct Content<'a> {
    pub(super) message_type: &'static str,
    /// What the event is when somebody else wrote it.
    pub(super) event: EventType,
    /// What a bot's author wants to read.
    pub(super) text: Cow<'a, str>,
    /// Under the names that they have in `metadata`.
    pub(super) details: Map<String, Value>,
    /// Its file, where what was said of it suffices to have it.
    pub(super) file: Option<File>,
    /// Whether a part of it is not understood, and the protobuf should be kept.
    pub(super) keep_raw: bool,
}

impl<'a> Content<'a> {
    pub(super) fn new(message_type: &'static str, text: impl Into<Cow<'a, str>>) -> Self {
        Self {
            message_type,
            event: EventType::Message,
            text: text.into(),
            details: Map::new(),
            file: None,
            keep_raw: false,
        }
    }

    /// Adds something under a name; what is not there (`null`) is left out later.
    pub(super) fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.put(name, value);
        self
    }

    pub(super) fn put(&mut self, name: &str, value: impl Serialize) {
        let value = serde_json::to_value(value);
        let value = value.expect("metadata is made of texts, numbers, lists and named fields");
        self.details.insert(name.to_owned(), value);
    }
}

/// What an unwrapped message says; `None` when it is not understood.
pub(super) fn of<'a>(unwrapped: &Unwrapped<'a>, parties: &Parties<'_>) -> Option<Content<'a>> {
    let message = unwrapped.message;
    let mut content = match change::of(message, parties) {
        Some(content) => content,
        None => {
            let content = lasting(message, parties)?;
            match unwrapped.edited {
                true => change::edited(content),
                false => content,
            }
        }
    };
    context::add(&mut content, unwrapped, parties);
    Some(content)
}

/// What stands for itself, and changes no other message. The first family that knows it.
pub(super) fn lasting<'a>(message: &'a wa::Message, parties: &Parties<'_>) -> Option<Content<'a>> {
    text::of(message)
        .or_else(|| media::of(message))
        .or_else(|| location::of(message))
        .or_else(|| contacts::of(message))
        .or_else(|| poll::of(message, parties))
        .or_else(|| reply::of(message))
        .or_else(|| menu::of(message))
        .or_else(|| trade::of(message, parties))
        .or_else(|| payment::of(message, parties))
        .or_else(|| invite::of(message, parties))
        .or_else(|| event::of(message, parties))
        .or_else(|| setting::of(message, parties))
}

/// A text that says something.
pub(super) fn said(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// What is only worth mentioning when it is so.
pub(super) fn flag(value: Option<bool>) -> Option<bool> {
    value.filter(|yes| *yes)
}
