//! Who wrote to whom: digits where the stanza says the number, or where it was looked up.

use whatsapp_rust::Jid;
use whatsapp_rust::types::message::MessageInfo;
use whatsapp_rust::wacore_binary::{JidExt, Server};

use super::{Numbers, Owner};

/// Sender and receiver of a message, and the names of others in it.
pub(super) struct Parties<'a> {
    owner: &'a Owner,
    info: &'a MessageInfo,
    numbers: &'a Numbers,
    pub(super) from: String,
    pub(super) to: String,
    /// `<n>@lid`
    pub(super) sender_lid: Option<String>,
    /// Digits.
    pub(super) sender_pn: Option<String>,
}

impl<'a> Parties<'a> {
    pub(super) fn of(owner: &'a Owner, info: &'a MessageInfo, numbers: &'a Numbers) -> Self {
        let source = &info.source;
        let mut parties = Self {
            owner,
            info,
            numbers,
            from: String::new(),
            to: owner.phone_number.clone(),
            sender_lid: addresses(&source.sender, source.sender_alt.as_ref())
                .find(|jid| jid.server.is_lid_family())
                .and_then(written),
            sender_pn: parties_number(&source.sender, source.sender_alt.as_ref(), numbers),
        };
        match source.is_from_me {
            true => {
                parties.from.clone_from(&owner.phone_number);
                parties.to = parties.recipient();
            }
            false => {
                let sender = || written(&source.sender).unwrap_or_default();
                parties.from = parties.sender_pn.clone().unwrap_or_else(sender);
            }
        }
        parties
    }

    pub(super) fn owner(&self) -> &'a Owner {
        self.owner
    }

    pub(super) fn info(&self) -> &'a MessageInfo {
        self.info
    }

    /// The other side of what the account itself wrote: a person, or the chat where there are several.
    fn recipient(&self) -> String {
        let source = &self.info.source;
        let beside = source.recipient_alt.as_ref();
        let number = match source.chat.is_group() {
            true => None,
            false => parties_number(
                &source.chat,
                beside.or(self.info.peer_recipient_pn.as_ref()),
                self.numbers,
            ),
        };
        number.or_else(|| written(&source.chat)).unwrap_or_default()
    }

    /// The other side of a chat of two.
    pub(super) fn other_side(&self) -> Option<&str> {
        let chat = &self.info.source.chat;
        (chat.server.is_pn_family() || chat.server.is_lid_family()).then_some(&self.to)
    }

    /// Somebody, or a chat, that a message names: digits if it is a number or its number is known; the
    /// account's own is written as it was registered.
    pub(super) fn name(&self, address: &Option<String>) -> Option<String> {
        let jid: Jid = address.as_deref()?.parse().ok()?;
        let number = match jid.server.is_lid_family() {
            true => self.number_of(&jid),
            false => None,
        };
        if self.owner.has_number(&jid) {
            return Some(self.owner.phone_number.clone());
        }
        match number {
            Some(digits) if self.owner.has_number(&Jid::pn(digits.as_str())) => {
                Some(self.owner.phone_number.clone())
            }
            Some(digits) => Some(digits),
            None => written(&jid),
        }
    }

    fn number_of(&self, lid: &Jid) -> Option<String> {
        let source = &self.info.source;
        let same = |jid: &Jid| jid.server.is_lid_family() && jid.user == lid.user;
        if addresses(&source.sender, source.sender_alt.as_ref()).any(same) {
            return self.sender_pn.clone();
        }
        if same(&source.chat) {
            return parties_number(
                &source.chat,
                self.info.peer_recipient_pn.as_ref(),
                self.numbers,
            );
        }
        self.numbers.of(lid).map(str::to_owned)
    }
}

fn addresses<'a>(jid: &'a Jid, beside: Option<&'a Jid>) -> impl Iterator<Item = &'a Jid> {
    std::iter::once(jid).chain(beside)
}

fn parties_number(jid: &Jid, beside: Option<&Jid>, numbers: &Numbers) -> Option<String> {
    let said = addresses(jid, beside)
        .find(|jid| jid.server.is_pn_family())
        .and_then(written);
    said.or_else(|| {
        addresses(jid, beside)
            .find_map(|jid| numbers.of(jid))
            .map(str::to_owned)
    })
}

/// Somebody who has part in what is no message: digits where one of the two is a number, or its number is known;
/// the account's own is written as it was registered.
pub(crate) fn person(owner: &Owner, jid: &Jid, beside: Option<&Jid>, numbers: &Numbers) -> String {
    match parties_number(jid, beside, numbers) {
        Some(digits) if owner.has_number(&Jid::pn(digits.as_str())) => owner.phone_number.clone(),
        Some(digits) => digits,
        None => written(jid).unwrap_or_default(),
    }
}

/// `None` for an address of nobody.
pub(super) fn written(jid: &Jid) -> Option<String> {
    let digits = !jid.user.is_empty() && jid.user.bytes().all(|byte| byte.is_ascii_digit());
    match jid.server {
        _ if jid.user.is_empty() => None,
        Server::Pn | Server::Hosted | Server::Legacy if digits => Some(jid.user.to_string()),
        Server::Lid | Server::HostedLid => Some(format!("{}@lid", jid.user)),
        _ => Some(jid.to_non_ad_string()),
    }
}
