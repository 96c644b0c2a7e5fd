//! One of every kind of message that the simulated WhatsApp knows, as tests ask for it and as a webhook gets it.

use serde_json::{Value, json};

/// What is sent, and what its webhook gets.
#[derive(Debug, Clone)]
pub struct Kind {
    /// What is asked of the simulator.
    pub asked: Value,
    pub event: &'static str,
    pub message_type: &'static str,
    pub content: &'static str,
    /// What its metadata holds, if it holds something of its own.
    pub own: Option<&'static str>,
}

fn kind(
    asked: Value,
    message_type: &'static str,
    content: &'static str,
    own: Option<&'static str>,
) -> Kind {
    let event = match message_type {
        "reaction" => "message.reaction",
        "edited" => "message.edited",
        "revoked" => "message.revoked",
        _ => "message",
    };
    Kind {
        asked,
        event,
        message_type,
        content,
        own,
    }
}

/// One of every kind, for the account of that number; `target` is the id of an earlier message of the same sender.
pub fn kinds(target: &str, number: &str) -> Vec<Kind> {
    let about = |kind: &str| json!({"type": kind, "target": target});
    let captioned = |kind: &str| json!({"type": kind, "text": "look"});
    let plain = |kind: &str| json!({ "type": kind });
    vec![
        kind(json!({"text": "Olá!"}), "text", "Olá!", None),
        kind(captioned("image"), "image", "look", Some("media")),
        kind(captioned("video"), "video", "look", Some("media")),
        kind(captioned("gif"), "video", "look", Some("media")),
        kind(plain("video_note"), "video", "", Some("media")),
        kind(plain("audio"), "audio", "", Some("media")),
        kind(plain("voice"), "audio", "", Some("media")),
        kind(captioned("document"), "document", "look", Some("media")),
        kind(plain("document"), "document", "", Some("media")),
        kind(plain("sticker"), "sticker", "", Some("media")),
        kind(plain("album"), "album", "", Some("album")),
        kind(plain("location"), "location", "MASP", Some("location")),
        kind(
            captioned("live_location"),
            "location",
            "look",
            Some("location"),
        ),
        kind(plain("contact"), "contacts", "Bia", Some("contacts")),
        kind(plain("contacts"), "contacts", "Bia, Caio", Some("contacts")),
        kind(about("reaction"), "reaction", "👍", Some("reaction")),
        kind(
            about("encrypted_reaction"),
            "reaction",
            "",
            Some("reaction"),
        ),
        kind(plain("poll"), "poll", "Pizza?", Some("poll")),
        kind(about("poll_vote"), "poll_vote", "", Some("poll_vote")),
        kind(plain("list"), "list", "Which one?", Some("menu")),
        kind(plain("list_reply"), "list_reply", "Yes", Some("reply")),
        kind(plain("buttons"), "buttons", "Which one?", Some("menu")),
        kind(plain("button_reply"), "button_reply", "Yes", Some("reply")),
        kind(plain("template"), "template", "Which one?", Some("menu")),
        kind(
            plain("template_reply"),
            "button_reply",
            "Yes",
            Some("reply"),
        ),
        kind(
            plain("interactive"),
            "interactive",
            "Which one?",
            Some("menu"),
        ),
        kind(
            plain("interactive_reply"),
            "interactive_reply",
            "Yes",
            Some("reply"),
        ),
        kind(plain("product"), "product", "Lamp", Some("product")),
        kind(plain("order"), "order", "Two lamps, please", Some("order")),
        kind(
            plain("payment"),
            "payment",
            "for the lamps",
            Some("payment"),
        ),
        kind(plain("invite"), "invite", "Family", Some("invite")),
        kind(plain("event"), "event", "Dinner", Some("event")),
        kind(
            about("event_response"),
            "event_response",
            "",
            Some("event_response"),
        ),
        kind(about("edit"), "edited", "edited", Some("edit")),
        kind(about("revoke"), "revoked", "", Some("revoke")),
        kind(about("pin"), "pin", "", Some("pin")),
        kind(about("keep"), "keep", "", Some("keep")),
        kind(
            plain("ephemeral_setting"),
            "ephemeral_setting",
            "",
            Some("ephemeral_seconds"),
        ),
        kind(
            json!({"type": "image", "view_once": true, "ephemeral_seconds": 86_400}),
            "image",
            "",
            Some("view_once"),
        ),
        kind(
            json!({"text": "so?", "quoted": target, "quoted_text": "first"}),
            "text",
            "so?",
            Some("quoted"),
        ),
        kind(
            json!({"text": "@me", "mentions": [number]}),
            "text",
            "@me",
            Some("mentions"),
        ),
        kind(
            json!({"text": "news", "forwarded": 5}),
            "text",
            "news",
            Some("forwarded"),
        ),
        kind(plain("unknown"), "unsupported", "", None),
    ]
}
