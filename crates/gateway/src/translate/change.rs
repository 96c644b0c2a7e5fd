//! What is said about an earlier message: reactions, edits, revokes.
//!
//! A message is named from its sender's point of view. Whether somebody may change it is not known here: an
//! edit is good if it comes from the message's author.

use domain::event_type::EventType;
use serde::Serialize;
use whatsapp_rust::Jid;
use whatsapp_rust::types::message::EditAttribute;
use whatsapp_rust::wacore_binary::Server;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message::protocol_message::Type;
use whatsapp_rust::waproto::whatsapp::message::secret_encrypted_message::SecretEncType;
use whatsapp_rust::waproto::whatsapp::message::{ProtocolMessage, ReactionMessage};

use super::content::{self, Content, said};
use super::parties::Parties;
use super::{time, wrapper};

/// Another message.
#[derive(Serialize, Default)]
pub(super) struct Target<'a> {
    message_id: Option<&'a str>,
    /// Who wrote it.
    participant: Option<String>,
    /// Where it is, if that is another chat.
    chat: Option<String>,
}

impl<'a> Target<'a> {
    pub(super) fn of(key: &'a wa::MessageKey, parties: &Parties<'_>) -> Self {
        let own = key.from_me == Some(true);
        let participant = match own {
            true => Some(parties.from.clone()),
            false => parties.name(&key.participant).or_else(|| partner(parties)),
        };
        Self {
            message_id: said(&key.id),
            participant,
            chat: elsewhere(&key.remote_jid, parties),
        }
    }
}

/// The one to whom the sender of a message speaks, in a chat of two.
fn partner(parties: &Parties<'_>) -> Option<String> {
    parties.other_side().map(str::to_owned)
}

/// A chat, if it is not the message's own. One of two has another name for each side, so it is not told.
pub(super) fn elsewhere(chat: &Option<String>, parties: &Parties<'_>) -> Option<String> {
    let chat: Jid = chat.as_deref()?.parse().ok()?;
    let shared = matches!(
        chat.server,
        Server::Group | Server::Broadcast | Server::Newsletter
    );
    let own = &parties.info().source.chat;
    (shared && !chat.is_same_chat_as(own)).then(|| chat.to_non_ad_string())
}

#[derive(Serialize)]
struct Reaction<'a> {
    #[serde(flatten)]
    target: Target<'a>,
    /// The sender took an earlier reaction back.
    removed: Option<bool>,
    encrypted: Option<bool>,
    reacted_at: Option<String>,
}

#[derive(Serialize, Default)]
struct Edit<'a> {
    #[serde(flatten)]
    target: Target<'a>,
    /// Of the new form.
    r#type: Option<&'a str>,
    encrypted: Option<bool>,
    edited_at: Option<String>,
}

#[derive(Serialize)]
struct Revoke<'a> {
    #[serde(flatten)]
    target: Target<'a>,
    by_admin: Option<bool>,
}

pub(super) fn of<'a>(message: &'a wa::Message, parties: &Parties<'_>) -> Option<Content<'a>> {
    if let Some(reaction) = message.reaction_message.as_option() {
        return Some(opened(reaction, parties));
    }
    if let Some(reaction) = message.enc_reaction_message.as_option() {
        let target = Target::of(&reaction.target_message_key, parties);
        return Some(reacted("", target, Some(true), None));
    }
    if let Some(sealed) = message.secret_encrypted_message.as_option() {
        let edits = [
            SecretEncType::MESSAGE_EDIT,
            SecretEncType::EVENT_EDIT,
            SecretEncType::POLL_EDIT,
        ];
        let edit = Edit {
            target: Target::of(&sealed.target_message_key, parties),
            encrypted: Some(true),
            ..Edit::default()
        };
        let mut content = changed("edited", EventType::MessageEdited, "").with("edit", edit);
        content.keep_raw = true;
        return edits.contains(&sealed.secret_enc_type?).then_some(content);
    }
    let protocol = message.protocol_message.as_option()?;
    match protocol.r#type {
        Some(Type::REVOKE) => Some(revoked(protocol, parties)),
        _ => edit(protocol, parties),
    }
}

fn changed<'a>(message_type: &'static str, event: EventType, text: &'a str) -> Content<'a> {
    Content {
        event,
        ..Content::new(message_type, text)
    }
}

fn opened<'a>(reaction: &'a ReactionMessage, parties: &Parties<'_>) -> Content<'a> {
    let emoji = said(&reaction.text).unwrap_or_default();
    let target = Target::of(&reaction.key, parties);
    reacted(
        emoji,
        target,
        None,
        time::millis(reaction.sender_timestamp_ms),
    )
}

fn reacted<'a>(
    emoji: &'a str,
    target: Target<'a>,
    encrypted: Option<bool>,
    reacted_at: Option<String>,
) -> Content<'a> {
    let reaction = Reaction {
        target,
        removed: encrypted.is_none().then_some(emoji.is_empty()),
        encrypted,
        reacted_at,
    };
    let mut content =
        changed("reaction", EventType::MessageReaction, emoji).with("reaction", reaction);
    content.keep_raw = encrypted.is_some();
    content
}

fn revoked<'a>(protocol: &'a ProtocolMessage, parties: &Parties<'_>) -> Content<'a> {
    let admin = parties.info().edit == EditAttribute::AdminRevoke;
    let revoke = Revoke {
        target: Target::of(&protocol.key, parties),
        by_admin: admin.then_some(true),
    };
    changed("revoked", EventType::MessageRevoked, "").with("revoke", revoke)
}

/// A message's new form, with all that belongs to it.
fn edit<'a>(protocol: &'a ProtocolMessage, parties: &Parties<'_>) -> Option<Content<'a>> {
    let new = protocol.edited_message.as_option()?;
    // An edit of an edit is none.
    let content = content::lasting(wrapper::unwrap(new).message, parties);
    let understood = content.is_some();
    let content = content.unwrap_or_else(|| Content::new("unsupported", ""));
    let edit = Edit {
        target: Target::of(&protocol.key, parties),
        r#type: Some(content.message_type),
        edited_at: time::millis(protocol.timestamp_ms),
        ..Edit::default()
    };
    let mut content = as_edited(content).with("edit", edit);
    content.keep_raw |= !understood;
    Some(content)
}

/// The new form of a message that is not named.
pub(super) fn edited(content: Content<'_>) -> Content<'_> {
    let edit = Edit {
        r#type: Some(content.message_type),
        ..Edit::default()
    };
    as_edited(content).with("edit", edit)
}

fn as_edited(content: Content<'_>) -> Content<'_> {
    Content {
        message_type: "edited",
        event: EventType::MessageEdited,
        ..content
    }
}
