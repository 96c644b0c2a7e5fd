//! Who wrote to whom, as digits where the stanza says them.

use domain::jid::Jid as Address;
use whatsapp_rust::Jid;
use whatsapp_rust::types::message::MessageSource;
use whatsapp_rust::wacore_binary::JidExt;

use super::Owner;

pub(super) struct Parties {
    pub(super) from: String,
    pub(super) to: String,
    /// `<n>@lid`
    pub(super) sender_lid: Option<String>,
    /// Digits.
    pub(super) sender_pn: Option<String>,
}

impl Parties {
    pub(super) fn of(owner: &Owner, source: &MessageSource) -> Self {
        let both = || {
            [Some(&source.sender), source.sender_alt.as_ref()]
                .into_iter()
                .flatten()
        };
        let pn = both().find(|jid| jid.server.is_pn_family()).map(display);
        let lid = both().find(|jid| jid.server.is_lid_family()).map(display);
        let (from, to) = match source.is_from_me {
            true => (owner.phone_number.clone(), recipient(source)),
            false => {
                let from = pn.clone().unwrap_or_else(|| display(&source.sender));
                (from, owner.phone_number.clone())
            }
        };
        Self {
            from,
            to,
            sender_lid: lid,
            sender_pn: pn,
        }
    }
}

/// The other side of what the account itself wrote: a person, or the chat where there are several.
fn recipient(source: &MessageSource) -> String {
    let alternative = source.recipient_alt.as_ref();
    match alternative.filter(|jid| jid.server.is_pn_family() && !source.chat.is_group()) {
        Some(pn) => display(pn),
        None => display(&source.chat),
    }
}

fn display(jid: &Jid) -> String {
    let text = jid.to_non_ad_string();
    match Address::parse(&text) {
        Some(address) => address.display(),
        None => text,
    }
}
