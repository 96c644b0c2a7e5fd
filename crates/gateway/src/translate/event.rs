//! Appointments in a chat, and the answers to them, which are encrypted as votes in polls are.

use serde::Serialize;
use whatsapp_rust::waproto::whatsapp as wa;

use super::change::Target;
use super::content::{Content, flag, said};
use super::location::{self, Location};
use super::parties::Parties;
use super::time;

#[derive(Serialize)]
struct Appointment<'a> {
    name: Option<&'a str>,
    description: Option<&'a str>,
    starts_at: Option<String>,
    ends_at: Option<String>,
    location: Option<Location<'a>>,
    join_link: Option<&'a str>,
    cancelled: Option<bool>,
}

#[derive(Serialize)]
struct Response<'a> {
    #[serde(flatten)]
    event: Target<'a>,
    encrypted: bool,
}

pub(super) fn of<'a>(message: &'a wa::Message, parties: &Parties<'_>) -> Option<Content<'a>> {
    if let Some(event) = message.event_message.as_option() {
        let details = Appointment {
            name: said(&event.name),
            description: said(&event.description),
            starts_at: time::seconds(event.start_time),
            ends_at: time::seconds(event.end_time.filter(|at| *at > 0)),
            location: event.location.as_option().map(location::location),
            join_link: said(&event.join_link),
            cancelled: flag(event.is_canceled),
        };
        let text = details.name.or(details.description).unwrap_or_default();
        return Some(Content::new("event", text).with("event", details));
    }
    let response = message.enc_event_response_message.as_option()?;
    let details = Response {
        event: Target::of(&response.event_creation_message_key, parties),
        encrypted: true,
    };
    let mut content = Content::new("event_response", "").with("event_response", details);
    content.keep_raw = true;
    Some(content)
}
