//! `usync`: who has which devices, which LID, and whether a number is on WhatsApp (all are).

use anyhow::{Context as _, Result};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeRef, Server};

use super::Reply;
use crate::account::Account;
use crate::device_list;
use crate::session::Member;
use crate::stanza::{empty, jid, text};
use crate::world::phone_number;

pub(super) fn answer(member: &Member, node: &NodeRef<'_>) -> Result<Reply> {
    let question = node.get_optional_child("usync").context("no <usync>")?;
    let wanted: Vec<&str> = question
        .get_optional_child("query")
        .and_then(|query| query.children())
        .unwrap_or_default()
        .iter()
        .map(|child| &*child.tag)
        .collect();
    let mut users = Vec::new();
    let asked = question.get_optional_child("list");
    for user in asked
        .iter()
        .flat_map(|list| list.get_children_by_tag("user"))
    {
        users.push(answer_for(member, user, &wanted)?);
    }
    let mut usync = NodeBuilder::new("usync");
    for name in ["sid", "index", "last", "mode", "context"] {
        if let Some(value) = text(question, name) {
            usync = usync.attr(name, value);
        }
    }
    let results = wanted.iter().filter_map(|name| result_tag(name)).map(empty);
    let usync = usync
        .children([
            NodeBuilder::new("result").children(results).build(),
            NodeBuilder::new("list").children(users).build(),
        ])
        .build();
    Ok(Reply::with(vec![usync]))
}

fn result_tag(name: &str) -> Option<&'static str> {
    ["devices", "contact", "lid", "business", "status"]
        .into_iter()
        .find(|known| *known == name)
}

fn answer_for(member: &Member, user: &NodeRef<'_>, wanted: &[&str]) -> Result<Node> {
    let contact = user.get_optional_child("contact");
    let contact = contact.and_then(|contact| {
        let content = contact.content_as_string();
        content.map(|text| text.to_string())
    });
    let named = jid(user, "jid");
    let account = match (&named, &contact) {
        (Some(jid), _) => member.world.resolve(jid),
        (None, Some(number)) => phone_number(number).and_then(|n| member.world.account(&n)),
        (None, None) => anyhow::bail!("a <user> that names nobody"),
    };
    let Ok(account) = account else {
        let nobody = NodeBuilder::new("contact").attr("type", "out").build();
        let user = NodeBuilder::new("user").children([nobody]);
        return Ok(match named {
            Some(jid) => user.attr("jid", jid).build(),
            None => user.build(),
        });
    };
    let mut children = Vec::new();
    for name in wanted {
        match *name {
            "devices" => children.push(devices(&account)?),
            "contact" => {
                let known = NodeBuilder::new("contact").attr("type", "in");
                children.push(match &contact {
                    Some(number) => known.string_content(number.as_str()).build(),
                    None => known.build(),
                });
            }
            "lid" => children.push(
                NodeBuilder::new("lid")
                    .attr("val", account.lid_jid())
                    .build(),
            ),
            "status" => children.push(empty("status")),
            _ => {}
        }
    }
    let by_lid = member.device.lock().profile.by_lid;
    let user = NodeBuilder::new("user");
    let user = match named {
        // Whoever knows a LID only does not learn the number by it.
        Some(jid) if jid.server == Server::Lid => user.attr("jid", jid),
        Some(jid) => user.attr("jid", jid).attr("pn_jid", account.jid()),
        None if by_lid => user
            .attr("jid", account.lid_jid())
            .attr("pn_jid", account.jid()),
        None => user
            .attr("jid", account.jid())
            .attr("pn_jid", account.jid()),
    };
    Ok(user.children(children).build())
}

/// The phone and what is linked to it.
fn devices(account: &Account) -> Result<Node> {
    let linked = device_list::linked(account);
    let mut list = vec![NodeBuilder::new("device").attr("id", 0).build()];
    list.extend(linked.iter().map(|id| {
        NodeBuilder::new("device")
            .attr("id", *id)
            .attr("key-index", *id)
            .build()
    }));
    let list = NodeBuilder::new("device-list")
        .attr("hash", device_list::hash(account, &linked))
        .children(list)
        .build();
    let keys = device_list::key_index_list(account, &linked)?;
    Ok(NodeBuilder::new("devices").children([list, keys]).build())
}
