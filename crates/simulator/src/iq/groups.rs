//! `w:g2`: what a group is, which there are, and a new one.

use anyhow::{Context as _, Result};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeRef};

use super::Reply;
use crate::groups::Group;
use crate::journal::Batch;
use crate::session::Member;
use crate::stanza::{jid, required};
use crate::world::{World, unix_time};

pub(super) fn answer(member: &Member, node: &NodeRef<'_>, kind: &str) -> Result<Reply> {
    let world = &member.world;
    if let Some(create) = node.get_optional_child("create") {
        return self::create(member, create);
    }
    if node.get_optional_child("participating").is_some() {
        let groups = world.groups.of(&member.account.phone);
        let groups: Result<Vec<Node>> = groups.iter().map(|group| describe(world, group)).collect();
        let groups = NodeBuilder::new("groups").children(groups?).build();
        return Ok(Reply::with(vec![groups]));
    }
    let to = jid(node, "to").context("a question about no group")?;
    match world.groups.find(&to.user) {
        Some(_) if kind == "set" => Ok(Reply::error(501, "feature-not-implemented")),
        Some(group) if group.members.contains(&member.account.phone) => {
            Ok(Reply::with(vec![describe(world, &group)?]))
        }
        Some(_) => Ok(Reply::error(403, "forbidden")),
        None => Ok(Reply::error(404, "item-not-found")),
    }
}

fn create(member: &Member, create: &NodeRef<'_>) -> Result<Reply> {
    let world = &member.world;
    let mut members = vec![member.account.phone.clone()];
    for participant in create.get_children_by_tag("participant") {
        let jid = jid(participant, "jid").context("a participant without jid")?;
        members.push(world.resolve(&jid)?.phone.clone());
    }
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let subject = required(create, "subject")?;
    let mut batch = Batch::default();
    let group = world
        .groups
        .create(&subject, &members, unix_time(), &mut batch);
    let position = world.journal.commit(batch);
    Ok(Reply::with(vec![describe(world, &group)?]).after(position))
}

fn describe(world: &World, group: &Group) -> Result<Node> {
    let creator = world.account(&group.creator)?;
    let mut participants = Vec::with_capacity(group.members.len());
    for phone in &group.members {
        let account = world.account(phone)?;
        let mut participant = NodeBuilder::new("participant")
            .attr("jid", account.jid())
            .attr("lid", account.lid_jid());
        if *phone == group.creator {
            participant = participant.attr("type", "superadmin");
        }
        participants.push(participant.build());
    }
    Ok(NodeBuilder::new("group")
        .attr("id", group.id.as_str())
        .attr("subject", group.subject.as_str())
        .attr("creation", group.created)
        .attr("creator", creator.jid())
        .attr("s_t", group.created)
        .attr("s_o", creator.jid())
        .attr("addressing_mode", "pn")
        .attr("size", group.members.len())
        .children(participants)
        .build())
}
