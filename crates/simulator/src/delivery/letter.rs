//! A message before it is encrypted, and the stanza around it.

use std::sync::Arc;

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};

use super::content::field;
use crate::account::Account;
use crate::device::Device;
use crate::ledger;
use crate::offline::Origin;
use crate::world::{unix_millis, unix_time};

/// How the sender of a message is named.
#[derive(Clone, Copy, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Addressing {
    /// By number, with the LID beside it.
    #[default]
    Pn,
    /// By LID, with the number beside it.
    Lid,
    /// By LID alone.
    LidOnly,
}

/// A message to be written.
pub(crate) struct Letter {
    pub(crate) id: String,
    pub(crate) account: Arc<Account>,
    /// The other side of the chat.
    pub(crate) contact: Arc<Account>,
    /// The account's own phone writes to the contact, and its linked devices get a copy.
    pub(crate) from_me: bool,
    /// Id of the group that it is written in.
    pub(crate) group: Option<String>,
    /// The protobuf that is encrypted.
    pub(crate) content: Arc<Vec<u8>>,
    pub(crate) stanza_type: String,
    /// Of a message that changes another: how.
    pub(crate) edit: Option<String>,
    pub(crate) addressing: Addressing,
    /// Damage the ciphertext.
    pub(crate) corrupt: bool,
}

impl Letter {
    pub(super) fn sender(&self) -> &Account {
        match self.from_me {
            true => &self.account,
            false => &self.contact,
        }
    }

    /// What is encrypted for a device outside groups.
    pub(super) fn direct(&self) -> Vec<u8> {
        if !self.from_me {
            return self.content.to_vec();
        }
        // The copy of an own message says to whom it went. It is put together by hand, so that
        // content that no schema knows stays in it.
        const DEVICE_SENT_MESSAGE: u32 = 31;
        let mut copy = field(1, self.contact.jid().to_string().as_bytes());
        copy.extend(field(2, &self.content));
        field(DEVICE_SENT_MESSAGE, &copy)
    }

    /// In a group whose members are named by LID, so is the sender.
    pub(super) fn envelope(&self, encs: Vec<Node>, group_by_lid: bool) -> Node {
        let sender = self.sender();
        let addressing = match self.addressing {
            Addressing::Pn if group_by_lid => Addressing::Lid,
            other => other,
        };
        let (by, beside) = match addressing {
            Addressing::Pn => (sender.jid(), Some(sender.lid_jid())),
            Addressing::Lid => (sender.lid_jid(), Some(sender.jid())),
            Addressing::LidOnly => (sender.lid_jid(), None),
        };
        let by_number = addressing == Addressing::Pn;
        let mut message = NodeBuilder::new("message")
            .attr("id", self.id.as_str())
            .attr("t", unix_time())
            .attr("type", self.stanza_type.as_str())
            .attr("notify", sender.standing().name);
        message = match &self.group {
            Some(group) => message
                .attr("from", Jid::group(group.as_str()))
                .attr("participant", by)
                .attr("addressing_mode", if by_number { "pn" } else { "lid" }),
            None => message.attr("from", by),
        };
        if self.from_me && self.group.is_none() {
            message = message.attr("recipient", self.contact.jid());
        }
        if let Some(edit) = &self.edit {
            message = message.attr("edit", edit.as_str());
        }
        let beside_name = match (self.group.is_some(), by_number) {
            (true, true) => "participant_lid",
            (true, false) => "participant_pn",
            (false, true) => "sender_lid",
            (false, false) => "sender_pn",
        };
        if let Some(beside) = beside {
            message = message.attr(beside_name, beside);
        }
        message.children(encs).build()
    }

    pub(super) fn record(&self, devices: &[Arc<Device>]) -> ledger::Message {
        let lines = devices.iter().map(|device| ledger::Line {
            device: device.id,
            deliveries: 0,
            acked_at: None,
        });
        let (from, to) = match self.from_me {
            true => (&self.account, &self.contact),
            false => (&self.contact, &self.account),
        };
        ledger::Message {
            id: self.id.clone(),
            account: self.account.phone.clone(),
            from: from.phone.clone(),
            to: to.phone.clone(),
            group: self.group.clone(),
            sent_at: unix_millis(),
            devices: lines.collect(),
        }
    }

    pub(super) fn origin(&self) -> Origin {
        Origin::Phone {
            phone: self.sender().phone.clone(),
            group: self.group.clone(),
            content: match self.group {
                Some(_) => self.content.to_vec(),
                None => self.direct(),
            },
        }
    }
}
