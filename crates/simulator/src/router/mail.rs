//! A message of a linked device: what is in its stanza, and the stanzas that it leads to.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeRef, Server};

use crate::account::Account;
use crate::groups::Group;
use crate::session::Member;
use crate::stanza::{jid, leaf, required, text};
use crate::world::{World, unix_time};

/// An `<enc>` of the sender.
#[derive(Clone, Copy)]
pub(super) struct Enc<'a> {
    pub(super) kind: &'a str,
    pub(super) bytes: &'a [u8],
}

/// What one message is made of.
pub(super) struct Mail<'a> {
    pub(super) id: String,
    stanza_type: String,
    pub(super) to: Jid,
    /// The group that it is written in.
    pub(super) group: Option<Arc<Group>>,
    /// For single devices.
    pub(super) direct: Vec<(Jid, Enc<'a>)>,
    /// For everyone in the group.
    pub(super) for_all: Option<Enc<'a>>,
    device_identity: Option<&'a [u8]>,
    /// Somebody couldn't read it and has asked for it.
    pub(super) again: bool,
}

/// The types of all `<enc>` below, which live as long as the stanza's other borrows.
pub(super) fn kinds(node: &NodeRef<'_>) -> Vec<String> {
    let mut kinds = Vec::new();
    each_enc(node, |_, enc| {
        kinds.push(text(enc, "type").unwrap_or_default());
    });
    kinds
}

/// Visits the `<enc>` for single devices, with their address, and those for all.
fn each_enc<'n, 'a>(node: &'n NodeRef<'a>, mut visit: impl FnMut(Option<Jid>, &'n NodeRef<'a>)) {
    if let Some(participants) = node.get_optional_child("participants") {
        for to in participants.get_children_by_tag("to") {
            for enc in to.get_children_by_tag("enc") {
                visit(jid(to, "jid"), enc);
            }
        }
    }
    for enc in node.get_children_by_tag("enc") {
        visit(None, enc);
    }
}

impl<'a> Mail<'a> {
    pub(super) fn read<'n: 'a>(
        world: &World,
        node: &'n NodeRef<'_>,
        kinds: &'a [String],
    ) -> Result<Self> {
        let to = jid(node, "to").context("<message> without to")?;
        let group = match to.server {
            Server::Group => {
                let group = world.groups.find(&to.user);
                Some(group.context("an unknown group")?)
            }
            _ => None,
        };
        // In a group, the one who has asked for it again.
        let only_for = jid(node, "participant").filter(|_| group.is_some());
        let mut direct = Vec::new();
        let mut for_all = None;
        let mut again = false;
        let mut kind = kinds.iter();
        each_enc(node, |device, enc| {
            again |= enc.get_attr("count").is_some();
            let enc = Enc {
                kind: kind.next().map_or("", String::as_str),
                bytes: enc.content_bytes().unwrap_or_default(),
            };
            match (device.or_else(|| only_for.clone()), &group) {
                (Some(device), _) => direct.push((device, enc)),
                (None, Some(_)) => for_all = Some(enc),
                (None, None) => direct.push((to.clone(), enc)),
            }
        });
        Ok(Self {
            id: required(node, "id")?,
            stanza_type: text(node, "type").unwrap_or_else(|| "text".to_owned()),
            device_identity: node
                .get_optional_child("device-identity")
                .and_then(|identity| identity.content_bytes()),
            to,
            group,
            direct,
            for_all,
            again,
        })
    }

    pub(super) fn group_id(&self) -> Option<&str> {
        self.group.as_ref().map(|group| group.id.as_str())
    }

    pub(super) fn envelope(&self, member: &Member, to: &Account, encs: &[Enc<'_>]) -> Node {
        let device = member.device.id;
        let by = member.account.jid().with_device(device);
        let lid = member.account.lid_jid().with_device(device);
        let mut message = NodeBuilder::new("message")
            .attr("id", self.id.as_str())
            .attr("t", unix_time())
            .attr("type", self.stanza_type.as_str())
            .attr("notify", member.account.standing().name);
        message = match &self.group {
            Some(group) if group.by_lid => message
                .attr("from", self.to.clone())
                .attr("participant", lid)
                .attr("participant_pn", by)
                .attr("addressing_mode", "lid"),
            Some(_) => message
                .attr("from", self.to.clone())
                .attr("participant", by)
                .attr("participant_lid", lid)
                .attr("addressing_mode", "pn"),
            None => message.attr("from", by).attr("sender_lid", lid),
        };
        if to.phone == member.account.phone && self.group_id().is_none() {
            message = message.attr("recipient", self.to.to_non_ad());
        }
        let mut children: Vec<Node> = encs
            .iter()
            .map(|enc| {
                NodeBuilder::new("enc")
                    .attr("v", 2)
                    .attr("type", enc.kind)
                    .bytes(enc.bytes)
                    .build()
            })
            .collect();
        if let Some(identity) = self.device_identity {
            children.push(leaf("device-identity", identity));
        }
        message.children(children).build()
    }

    /// The reader's phone says that it has the message.
    pub(super) fn delivered_to(&self, reader: &Account) -> Node {
        self.receipt_from(reader).build()
    }

    pub(super) fn receipt_from(&self, reader: &Account) -> NodeBuilder {
        let receipt = NodeBuilder::new("receipt")
            .attr("id", self.id.as_str())
            .attr("t", unix_time());
        match (&self.group, self.to.server) {
            (Some(group), _) => receipt
                .attr("from", self.to.clone())
                .attr("participant", group.names(reader).0),
            (None, Server::Lid) => receipt.attr("from", reader.lid_jid()),
            (None, _) => receipt.attr("from", reader.jid()),
        }
    }
}
