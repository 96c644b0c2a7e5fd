//! The numbers behind the LIDs of a message, as far as they were looked up.
//!
//! They only ever add to a row: its id is made of what the stanza says.

use std::collections::HashMap;

use whatsapp_rust::Jid;
use whatsapp_rust::types::message::MessageInfo;
use whatsapp_rust::waproto::whatsapp as wa;

use super::{context, wrapper};

/// So many are worth a look-up in one message.
const LOOKED_UP: usize = 16;

/// Digits by the user part of a LID.
#[derive(Debug, Default)]
pub(crate) struct Numbers(HashMap<String, String>);

impl Numbers {
    pub(crate) fn add(&mut self, lid: &Jid, digits: &str) {
        self.0.insert(lid.user.to_string(), digits.to_owned());
    }

    pub(super) fn of(&self, jid: &Jid) -> Option<&str> {
        if self.0.is_empty() || !jid.server.is_lid_family() {
            return None;
        }
        self.0.get(jid.user.as_str()).map(String::as_str)
    }
}

/// The LIDs in a message whose numbers the stanza does not say.
pub(crate) fn wanted(info: &MessageInfo, message: &wa::Message) -> Vec<Jid> {
    let source = &info.source;
    let mut wanted = Vec::new();
    let mut want = |jid: &Jid, beside: Option<&Jid>| {
        let said = beside.is_some_and(|beside| beside.server.is_pn_family());
        if jid.server.is_lid_family() && !said && wanted.len() < LOOKED_UP {
            wanted.push(jid.to_non_ad());
        }
    };
    want(&source.sender, source.sender_alt.as_ref());
    if source.is_from_me {
        want(&source.chat, info.peer_recipient_pn.as_ref());
    }
    for address in context::people(wrapper::unwrap(message).message).take(2 * LOOKED_UP) {
        let Ok(jid) = address.parse::<Jid>() else {
            continue;
        };
        if jid.user != source.sender.user {
            want(&jid, None);
        }
    }
    wanted
}
