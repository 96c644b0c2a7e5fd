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
use whatsapp_rust::types::events::{Event, GroupUpdate, Receipt};
use whatsapp_rust::types::presence::ReceiptType;
use whatsapp_rust::wacore::stanza::groups::{
    GroupNotificationAction as Action, GroupParticipantInfo,
};
use whatsapp_rust::wacore_binary::JidExt;

use crate::translate::{Numbers, Owner, person, storable_time};

/// Members that are named of a change of a group; there may be a thousand.
const NAMED: usize = 256;
/// So many LIDs of one occurrence are worth a look-up.
const LOOKED_UP: usize = 16;

/// What is to be told of an event.
pub(crate) fn rows(owner: &Owner, event: &Event, numbers: &Numbers) -> Vec<NewMessage> {
    match event {
        Event::Receipt(receipt) => receipts(owner, receipt, numbers),
        Event::IncomingCall(incoming) => Vec::from_iter(call(owner, incoming, numbers)),
        Event::MissedCall(missed) => vec![missed_call(owner, missed, numbers)],
        Event::GroupUpdate(update) => vec![group(owner, update, numbers)],
        _ => Vec::new(),
    }
}

/// The LIDs in an event whose numbers it does not say.
pub(crate) fn wanted(event: &Event) -> Vec<Jid> {
    let mut people: Vec<(&Jid, Option<&Jid>)> = Vec::new();
    match event {
        Event::Receipt(Receipt { source, .. }) => {
            people.push((&source.sender, source.sender_alt.as_ref()));
        }
        Event::IncomingCall(call) => match &call.action {
            CallAction::Offer {
                call_creator,
                caller_pn,
                ..
            } => people.push((call_creator, caller_pn.as_ref())),
            CallAction::OfferNotice { call_creator, .. } => people.push((call_creator, None)),
            _ => {}
        },
        Event::MissedCall(call) => people.push((&call.from, None)),
        Event::GroupUpdate(update) => {
            let by = update.participant.as_ref();
            people.extend(by.map(|by| (by, update.participant_pn.as_ref())));
            let members = participants(&update.action).iter();
            people.extend(members.map(|one| (&one.jid, one.phone_number.as_ref())));
        }
        _ => {}
    }
    people
        .into_iter()
        .filter(|(jid, beside)| jid.server.is_lid_family() && beside.is_none())
        .map(|(jid, _)| jid.to_non_ad())
        .take(LOOKED_UP)
        .collect()
}

/// One row for each message that a receipt is about; none of what is between devices and servers.
fn receipts(owner: &Owner, receipt: &Receipt, numbers: &Numbers) -> Vec<NewMessage> {
    let source = &receipt.source;
    let chat = source.chat.to_non_ad_string();
    let sender = source.sender.to_non_ad_string();
    let from = person(owner, &source.sender, source.sender_alt.as_ref(), numbers);
    let Some(kind) = kind(&receipt.r#type, from == owner.phone_number) else {
        return Vec::new();
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
            timestamp: storable_time(receipt.timestamp),
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
                storable_time(receipt.timestamp),
            )
        }
    };
    receipt.message_ids.iter().map(row).collect()
}

/// As clients know them. What the account's own devices did has `_self`.
fn kind(receipt: &ReceiptType, own: bool) -> Option<&'static str> {
    Some(match receipt {
        ReceiptType::Read if own => "read_self",
        ReceiptType::Played if own => "played_self",
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
fn call(owner: &Owner, call: &IncomingCall, numbers: &Numbers) -> Option<NewMessage> {
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
            let caller = person(owner, call_creator, caller_pn.as_ref(), numbers);
            (call_id, caller, *is_video, group)
        }
        CallAction::OfferNotice {
            call_id,
            call_creator,
            is_video,
            is_group,
        } => {
            let group = is_group.then(|| call.from.to_non_ad_string());
            let caller = person(owner, call_creator, None, numbers);
            (call_id, caller, *is_video, group)
        }
        _ => return None,
    };
    let in_group = group.is_some();
    let chat = group.unwrap_or_else(|| call.from.to_non_ad_string());
    let mut metadata = json!({"v": 1, "chat": chat, "call_id": call_id, "video": video});
    if in_group {
        metadata["group"] = true.into();
    }
    Some(call_row(
        owner,
        call_id,
        chat,
        caller,
        metadata,
        storable_time(call.timestamp),
    ))
}

/// Somebody called while nobody was there to hear it.
fn missed_call(owner: &Owner, call: &MissedCall, numbers: &Numbers) -> NewMessage {
    let chat = call.from.to_non_ad_string();
    let metadata = json!({"v": 1, "chat": chat, "call_id": call.call_id, "missed": true});
    let caller = person(owner, &call.from, None, numbers);
    let at = storable_time(call.timestamp);
    call_row(owner, &call.call_id, chat, caller, metadata, at)
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
fn group(owner: &Owner, update: &GroupUpdate, numbers: &Numbers) -> NewMessage {
    let chat = update.group_jid.to_non_ad_string();
    let at = storable_time(update.timestamp);
    let by = update
        .participant
        .as_ref()
        .map(|jid| person(owner, jid, update.participant_pn.as_ref(), numbers));
    let action = update.action.wire_tag();
    let mut metadata = Map::new();
    metadata.insert("v".to_owned(), 1.into());
    metadata.insert("chat".to_owned(), chat.as_str().into());
    metadata.insert("group".to_owned(), true.into());
    metadata.insert("action".to_owned(), action.into());
    metadata.insert("by".to_owned(), by.clone().into());
    let named = |jid: &Jid, beside: Option<&Jid>| person(owner, jid, beside, numbers);
    let details = details(&update.action, named).into_iter();
    metadata.extend(details.map(|(name, value)| (name.to_owned(), value)));
    let notification = update.notification_id.as_deref().unwrap_or_default();
    let name = format!("{chat}/{notification}/{}/{action}", update.action_index);
    let id = ids::occurrence(owner.connection_id, EventType::GroupUpdate, &name, at);
    NewMessage {
        message_id: notification.to_owned(),
        chat: chat.clone(),
        from: by.unwrap_or(chat),
        message_type: "group_update".to_owned(),
        content: action.to_string(),
        metadata: Value::Object(metadata).to_string(),
        ..row(owner, id, EventType::GroupUpdate, at)
    }
}

/// What a change is, beyond its name; of changes that say no more, nothing.
fn details(
    action: &Action,
    named: impl Fn(&Jid, Option<&Jid>) -> String,
) -> Vec<(&'static str, Value)> {
    let members = || {
        let people = participants(action).iter().take(NAMED);
        let named = people.map(|one| named(&one.jid, one.phone_number.as_ref()));
        ("participants", named.collect())
    };
    match action {
        Action::Add { reason, .. } | Action::Remove { reason, .. } => {
            let mut told = vec![members()];
            told.extend(reason.as_deref().map(|reason| ("reason", reason.into())));
            told
        }
        Action::Promote { .. }
        | Action::Demote { .. }
        | Action::Modify { .. }
        | Action::LinkedGroupPromote { .. }
        | Action::LinkedGroupDemote { .. }
        | Action::CreatedMembershipRequests { .. } => vec![members()],
        Action::RevokedMembershipRequests { participants } => {
            let people = participants.iter().take(NAMED);
            vec![("participants", people.map(|jid| named(jid, None)).collect())]
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

/// The members that a change is about.
fn participants(action: &Action) -> &[GroupParticipantInfo] {
    match action {
        Action::Add { participants, .. }
        | Action::Remove { participants, .. }
        | Action::Promote { participants }
        | Action::Demote { participants }
        | Action::Modify { participants }
        | Action::LinkedGroupPromote { participants }
        | Action::LinkedGroupDemote { participants } => participants,
        Action::CreatedMembershipRequests { requests, .. } => requests,
        _ => &[],
    }
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
