//! What every row says of its stanza, and the written form of all `metadata`.

use serde_json::{Map, Value};
use whatsapp_rust::Jid;
use whatsapp_rust::wacore_binary::JidExt;

use super::bounds;
use super::parties::Parties;

/// What is true of any message of this stanza.
pub(super) fn of(parties: &Parties<'_>) -> Map<String, Value> {
    let info = parties.info();
    let chat = &info.source.chat;
    let mut map = Map::new();
    put(&mut map, "chat", Some(&chat.to_non_ad_string()));
    put(&mut map, "chat_kind", Some(kind(chat)));
    put(&mut map, "push_name", Some(&info.push_name));
    put(&mut map, "sender_lid", parties.sender_lid.as_deref());
    put(&mut map, "sender_pn", parties.sender_pn.as_deref());
    let business = info.verified_name.as_ref();
    let business = business.and_then(|verified| verified.name.as_deref());
    put(&mut map, "business_name", business);
    if chat.is_group() {
        map.insert("group".to_owned(), true.into());
    }
    if chat.is_newsletter() && info.server_id > 0 {
        map.insert("server_id".to_owned(), info.server_id.into());
    }
    map
}

fn kind(chat: &Jid) -> &'static str {
    match chat {
        chat if chat.is_group() => "group",
        chat if chat.is_status_broadcast() => "status",
        chat if chat.is_broadcast_list() => "broadcast",
        chat if chat.is_newsletter() => "newsletter",
        _ => "direct",
    }
}

/// Adds a text that says something.
pub(super) fn put(map: &mut Map<String, Value>, name: &str, text: Option<&str>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        map.insert(name.to_owned(), text.into());
    }
}

/// The metadata as a row holds it.
pub(super) fn written(mut map: Map<String, Value>) -> String {
    bounds::bound(&mut map);
    map.insert("v".to_owned(), 1.into());
    Value::Object(map).to_string()
}
