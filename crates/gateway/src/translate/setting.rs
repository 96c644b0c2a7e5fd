//! What somebody set in a chat: a pinned message, one that is kept, how long messages last.

use serde::Serialize;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::KeepType;
use whatsapp_rust::waproto::whatsapp::message::{pin_in_chat_message, protocol_message};

use super::change::Target;
use super::content::Content;
use super::parties::Parties;

#[derive(Serialize)]
struct Pin<'a> {
    #[serde(flatten)]
    target: Target<'a>,
    pinned: bool,
}

#[derive(Serialize)]
struct Keep<'a> {
    #[serde(flatten)]
    target: Target<'a>,
    kept: bool,
}

pub(super) fn of<'a>(message: &'a wa::Message, parties: &Parties<'_>) -> Option<Content<'a>> {
    if let Some(pin) = message.pin_in_chat_message.as_option() {
        let details = Pin {
            target: Target::of(&pin.key, parties),
            pinned: pin.r#type == Some(pin_in_chat_message::Type::PIN_FOR_ALL),
        };
        return Some(Content::new("pin", "").with("pin", details));
    }
    if let Some(keep) = message.keep_in_chat_message.as_option() {
        let details = Keep {
            target: Target::of(&keep.key, parties),
            kept: keep.keep_type == Some(KeepType::KEEP_FOR_ALL),
        };
        return Some(Content::new("keep", "").with("keep", details));
    }
    let protocol = message.protocol_message.as_option()?;
    let is_setting = protocol.r#type == Some(protocol_message::Type::EPHEMERAL_SETTING);
    is_setting.then(|| {
        let seconds = protocol.ephemeral_expiration.unwrap_or_default();
        Content::new("ephemeral_setting", "").with("ephemeral_seconds", seconds)
    })
}
