//! What contacts write: the protobuf of every type that can be asked for.

mod files;
mod menus;
mod things;

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use wacore::proto_helpers::MessageExt as _;
use wacore::send::stanza_type_from_message;
use wacore::types::message::EditAttribute;
use wacore_binary::Jid;
use waproto::buffa::{Message as _, MessageField};
use waproto::whatsapp::message::{FutureProofMessage, ProtocolMessage, protocol_message};
use waproto::whatsapp::{ContextInfo, Message, MessageKey};

use super::super::Refused;
use super::request::{Request, Type};
use crate::account::Account;
use crate::delivery::Addressing;
use crate::world::{World, phone_number, unix_millis};

/// Where a message is written.
pub(super) struct Chat<'a> {
    pub(super) world: &'a World,
    pub(super) account: &'a Account,
    pub(super) contact: &'a Account,
    pub(super) group: Option<&'a str>,
}

/// A message as it is encrypted, and what its stanza says of it.
pub(super) struct Content {
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) stanza_type: String,
    pub(super) edit: Option<String>,
}

/// Field 9999, length-delimited: "mystery".
const UNKNOWN: &[u8] = b"\xfa\xf0\x04\x07mystery";

/// What the request's type is, in that chat.
pub(super) fn write(request: &Request, chat: &Chat<'_>) -> Result<Content, Refused> {
    let (bytes, message) = match (request.r#type, &request.text, &request.content) {
        (Type::Raw, None, Some(content)) => {
            let bytes = BASE64_STANDARD
                .decode(content)
                .map_err(|error| Refused::bad_request(format!("content: {error}")))?;
            let message = Message::decode_from_slice(&bytes).unwrap_or_default();
            (bytes, message)
        }
        (Type::Raw, ..) => {
            return Err(Refused::bad_request("type raw takes content, in base64"));
        }
        (Type::Unknown, None, None) => (UNKNOWN.to_vec(), Message::default()),
        (Type::Unknown, ..) => return Err(Refused::bad_request("type unknown takes no content")),
        (_, _, Some(_)) => return Err(Refused::bad_request("content is of type raw")),
        (Type::Text, None, None) => return Err(Refused::bad_request("type text takes text")),
        (_, _, None) => {
            let message = Writing { request, chat }.message()?;
            (message.encode_to_vec(), message)
        }
    };
    let known = match message == Message::default() {
        true => "text",
        false => stanza_type_from_message(&message),
    };
    let edit = EditAttribute::infer_from_message(&message);
    Ok(Content {
        bytes: Arc::new(bytes),
        stanza_type: request.stanza_type.clone().unwrap_or_else(|| known.into()),
        edit: edit.map(|edit| edit.to_string_val().to_owned()),
    })
}

/// One message, by one contact (or by the account, to it).
struct Writing<'a> {
    request: &'a Request,
    chat: &'a Chat<'a>,
}

impl Writing<'_> {
    fn message(&self) -> Result<Message, Refused> {
        let mut message = match self.request.r#type {
            Type::Edit => self.protocol(protocol_message::Type::MESSAGE_EDIT)?,
            Type::Revoke => self.protocol(protocol_message::Type::REVOKE)?,
            kind => match files::of(kind, self).or_else(|| menus::of(kind, self)) {
                Some(message) => message,
                None => things::of(kind, self)?,
            },
        };
        let context = self.context()?;
        if context != ContextInfo::default() {
            message.set_context_info(context);
        }
        if self.request.view_once {
            message = Message {
                view_once_message_v2: wrapped(message),
                ..Message::default()
            };
        }
        if self.request.ephemeral_seconds.is_some() {
            message = Message {
                ephemeral_message: wrapped(message),
                ..Message::default()
            };
        }
        Ok(message)
    }

    fn text(&self) -> Option<String> {
        self.request.text.clone()
    }

    fn text_or(&self, otherwise: &str) -> Option<String> {
        Some(self.text().unwrap_or_else(|| otherwise.to_owned()))
    }

    /// What there is to choose from.
    fn options(&self) -> Vec<String> {
        let some = || vec!["Yes".to_owned(), "No".to_owned()];
        self.request.options.clone().unwrap_or_else(some)
    }

    fn sender(&self) -> &Account {
        match self.request.from_me {
            true => self.chat.account,
            false => self.chat.contact,
        }
    }

    fn receiver(&self) -> &Account {
        match self.request.from_me {
            true => self.chat.contact,
            false => self.chat.account,
        }
    }

    fn address(&self, account: &Account) -> Jid {
        match self.request.addressing {
            Addressing::Pn => account.jid(),
            Addressing::Lid | Addressing::LidOnly => account.lid_jid(),
        }
    }

    fn protocol(&self, kind: protocol_message::Type) -> Result<Message, Refused> {
        let edited = kind == protocol_message::Type::MESSAGE_EDIT;
        let new = Message {
            conversation: self.text_or("edited"),
            ..Message::default()
        };
        let protocol = ProtocolMessage {
            key: self.target()?,
            r#type: Some(kind),
            edited_message: match edited {
                true => MessageField::some(new),
                false => MessageField::none(),
            },
            timestamp_ms: edited.then(unix_millis),
            ..ProtocolMessage::default()
        };
        Ok(Message {
            protocol_message: MessageField::some(protocol),
            ..Message::default()
        })
    }

    /// The message that this one is about, named as its sender's phone does. One that the simulator doesn't
    /// know is the sender's own if it is edited or revoked, else the receiver's.
    fn target(&self) -> Result<MessageField<MessageKey>, Refused> {
        let id = self.request.target.as_ref();
        let id = id.ok_or_else(|| Refused::bad_request("target names a message"))?;
        let sender = self.sender();
        let changes = matches!(self.request.r#type, Type::Edit | Type::Revoke);
        let author = match self.chat.world.ledger.find(id) {
            Some(message) if message.from == sender.phone => None,
            Some(message) => self
                .chat
                .world
                .find(&message.from)
                .map(|account| self.address(&account)),
            None if changes => None,
            None => Some(self.address(self.receiver())),
        };
        let group = self.chat.group.map(Jid::group);
        let chat = group
            .clone()
            .unwrap_or_else(|| self.address(self.receiver()));
        Ok(MessageField::some(MessageKey {
            remote_jid: Some(chat.to_string()),
            from_me: Some(author.is_none()),
            id: Some(id.clone()),
            participant: author
                .filter(|_| group.is_some())
                .map(|author| author.to_string()),
        }))
    }

    fn context(&self) -> Result<ContextInfo, Refused> {
        let mut context = ContextInfo {
            expiration: self.request.ephemeral_seconds,
            forwarding_score: self.request.forwarded,
            is_forwarded: self.request.forwarded.map(|_| true),
            ..ContextInfo::default()
        };
        if let Some(id) = &self.request.quoted {
            let known = self.chat.world.ledger.find(id);
            let author = known.and_then(|message| self.chat.world.find(&message.from));
            let author = author.as_deref().unwrap_or_else(|| self.receiver());
            context.stanza_id = Some(id.clone());
            context.participant = Some(self.address(author).to_string());
            context.quoted_message = MessageField::some(Message {
                conversation: self.request.quoted_text.clone(),
                ..Message::default()
            });
        }
        for number in &self.request.mentions {
            let number = phone_number(number).map_err(Refused::bad_request)?;
            let account = self.chat.world.account(&number);
            let account = account.map_err(Refused::bad_request)?;
            context
                .mentioned_jid
                .push(self.address(&account).to_string());
        }
        Ok(context)
    }
}

fn wrapped(inner: Message) -> MessageField<FutureProofMessage> {
    MessageField::some(FutureProofMessage {
        message: MessageField::some(inner),
    })
}
