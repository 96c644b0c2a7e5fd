//! What happens besides messages: receipts, calls, and changes of groups. Pure, as [`crate::translate`]
//! is. WhatsApp does not wait until any of it is kept, so it is told as well as that can be done.

use chrono::{DateTime, Utc};
use domain::event_type::EventType;
use domain::ids::{self, MessageKey};
use domain::message::NewMessage;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use whatsapp_rust::Jid;
use whatsapp_rust::types::call::{CallAction, IncomingCall, MissedCall};
use whatsapp_rust::types::events::{GroupUpdate, Receipt};
use whatsapp_rust::types::presence::ReceiptType;
use whatsapp_rust::wacore::stanza::groups::{
    GroupNotificationAction as Action, GroupParticipantInfo,
};
use whatsapp_rust::wacore_binary::JidExt;

use crate::translate::{Owner, person};

/// Members that are named of a change of a group; there may be a thousand.
const NAMED: usize = 256;

/// One row for each message that a receipt is about; none of what is between devices and servers.
pub(crate) fn receipts(owner: &Owner, receipt: &Receipt) -> Vec<NewMessage> {
    let Some(kind) = kind(&receipt.r#type) else {
        return Vec::new();
    };
    let source = &receipt.source;
    let chat = source.chat.to_non_ad_string();
    let sender = source.sender.to_non_ad_string();
    let from = match source.is_from_me {
        true => owner.phone_number.clone(),
        false => person(&source.sender, source.sender_alt.as_ref()),
    };
    let mut metadata = json!({"v": 1, "chat": chat, "kind": kind});
    if source.chat.is_group() {
        metadata["group"] = true.into();
        metadata["participant"] = from.as_str().into();
    }
    let metadata = metadata.to_string();
    let row = |message_id: &String| {
        let key = MessageKey {
            connection: owner.connection_id,
            chat: &chat,
            sender: &sender,
            message_id,
            timestamp: receipt.timestamp,
        };
        NewMessage {
            message_id: message_id.clone(),
            chat: chat.clone(),
            from: from.clone(),
            message_type: "receipt".to_owned(),
            content: kind.to_owned(),
            metadata: metadata.clone(),
            ..row(
                owner,
                ids::receipt(key, kind),
                EventType::MessageReceipt,
                receipt.timestamp,
            )
        }
    };
    receipt.message_ids.iter().map(row).collect()
}

/// As clients know them. What the account's own devices did has `_self`.
fn kind(receipt: &ReceiptType) -> Option<&'static str> {
    Some(match receipt {
        ReceiptType::Delivered => "delivered",
        ReceiptType::Read => "read",
        ReceiptType::Played => "played",
        ReceiptType::ReadSelf => "read_self",
        ReceiptType::PlayedSelf => "played_self",
        ReceiptType::ServerError => "server_error",
        _ => return None,
    })
}

/// Somebody calls.
pub(crate) fn call(owner: &Owner, call: &IncomingCall) -> Option<NewMessage> {
    let (call_id, caller, video, group) = match &call.action {
        CallAction::Offer {
            call_id,
            call_creator,
            caller_pn,
            is_video,
            group_jid,
            ..
        } => {
            let group = group_jid.as_ref().map(Jid::to_non_ad_string);
            let caller = person(call_creator, caller_pn.as_ref());
            (call_id, caller, *is_video, group)
        }
        CallAction::OfferNotice {
            call_id,
            call_creator,
            is_video,
            is_group,
        } => {
            let group = is_group.then(|| call.from.to_non_ad_string());
            (call_id, person(call_creator, None), *is_video, group)
        }
        _ => return None,
    };
    let mut metadata = json!({"v": 1, "call_id": call_id, "video": video});
    if let Some(group) = &group {
        metadata["group"] = true.into();
        metadata["chat"] = group.as_str().into();
    }
    let chat = group.unwrap_or_else(|| call.from.to_non_ad_string());
    Some(call_row(
        owner,
        call_id,
        chat,
        caller,
        metadata,
        call.timestamp,
    ))
}

/// Somebody called while nobody was there to hear it.
pub(crate) fn missed_call(owner: &Owner, call: &MissedCall) -> NewMessage {
    let metadata = json!({"v": 1, "call_id": call.call_id, "missed": true});
    let chat = call.from.to_non_ad_string();
    let caller = person(&call.from, None);
    call_row(owner, &call.call_id, chat, caller, metadata, call.timestamp)
}

fn call_row(
    owner: &Owner,
    call_id: &str,
    chat: String,
    from: String,
    metadata: Value,
    at: DateTime<Utc>,
) -> NewMessage {
    let name = match metadata["missed"] == true {
        true => format!("{call_id}/missed"),
        false => call_id.to_owned(),
    };
    let id = ids::occurrence(owner.connection_id, EventType::CallOffer, &name, at);
    NewMessage {
        message_id: call_id.to_owned(),
        chat,
        from,
        message_type: "call".to_owned(),
        metadata: metadata.to_string(),
        ..row(owner, id, EventType::CallOffer, at)
    }
}

/// A group's members, name or settings changed.
pub(crate) fn group(owner: &Owner, update: &GroupUpdate) -> NewMessage {
    let chat = update.group_jid.to_non_ad_string();
    let by = update
        .participant
        .as_ref()
        .map(|jid| person(jid, update.participant_pn.as_ref()));
    let action = update.action.wire_tag();
    let mut metadata = Map::new();
    metadata.insert("v".to_owned(), 1.into());
    metadata.insert("chat".to_owned(), chat.as_str().into());
    metadata.insert("group".to_owned(), true.into());
    metadata.insert("action".to_owned(), action.into());
    metadata.insert("by".to_owned(), by.clone().into());
    let details = details(&update.action).into_iter();
    metadata.extend(details.map(|(name, value)| (name.to_owned(), value)));
    let notification = update.notification_id.as_deref().unwrap_or_default();
    let name = format!("{chat}/{notification}/{}/{action}", update.action_index);
    let id = ids::occurrence(
        owner.connection_id,
        EventType::GroupUpdate,
        &name,
        update.timestamp,
    );
    NewMessage {
        message_id: notification.to_owned(),
        chat: chat.clone(),
        from: by.unwrap_or(chat),
        message_type: "group_update".to_owned(),
        content: action.to_string(),
        metadata: Value::Object(metadata).to_string(),
        ..row(owner, id, EventType::GroupUpdate, update.timestamp)
    }
}

/// What a change is, beyond its name; of changes that say no more, nothing.
fn details(action: &Action) -> Vec<(&'static str, Value)> {
    match action {
        Action::Add {
            participants,
            reason,
        }
        | Action::Remove {
            participants,
            reason,
        } => {
            let mut told = vec![members(participants)];
            told.extend(reason.as_deref().map(|reason| ("reason", reason.into())));
            told
        }
        Action::Promote { participants }
        | Action::Demote { participants }
        | Action::Modify { participants }
        | Action::LinkedGroupPromote { participants }
        | Action::LinkedGroupDemote { participants } => vec![members(participants)],
        Action::CreatedMembershipRequests { requests, .. } => vec![members(requests)],
        Action::RevokedMembershipRequests { participants } => {
            let people = participants.iter().take(NAMED);
            vec![(
                "participants",
                people.map(|jid| person(jid, None)).collect(),
            )]
        }
        Action::Subject { subject, .. } => vec![("subject", subject.as_str().into())],
        Action::Description { description, .. } => {
            vec![("description", description.as_deref().into())]
        }
        Action::Ephemeral { expiration, .. } => vec![("ephemeral_seconds", (*expiration).into())],
        Action::MembershipApprovalMode { enabled } => vec![("enabled", (*enabled).into())],
        Action::MemberAddMode { mode } => vec![("mode", mode.as_str().into())],
        Action::Delete {
            reason: Some(reason),
        } => vec![("reason", reason.as_str().into())],
        _ => Vec::new(),
    }
}

fn members(people: &[GroupParticipantInfo]) -> (&'static str, Value) {
    let people = people.iter().take(NAMED);
    let named = people.map(|one| person(&one.jid, one.phone_number.as_ref()));
    ("participants", named.collect())
}

fn row(owner: &Owner, id: Uuid, event_type: EventType, at: DateTime<Utc>) -> NewMessage {
    NewMessage {
        id,
        client_id: owner.client_id,
        connection_id: owner.connection_id,
        event_type,
        message_id: String::new(),
        chat: String::new(),
        from: String::new(),
        to: owner.phone_number.clone(),
        message_type: String::new(),
        content: String::new(),
        metadata: String::new(),
        timestamp: at,
        raw: None,
        media: None,
    }
}
