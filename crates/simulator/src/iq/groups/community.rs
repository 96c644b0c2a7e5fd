//! Communities: groups of groups.

use anyhow::{Context as _, Result};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeRef};

use super::{Reply, refused};
use crate::groups::{self, Change, describe};
use crate::session::Member;
use crate::stanza::jid;

pub(super) fn get(member: &Member, id: &str, question: &NodeRef<'_>) -> Result<Reply> {
    let world = &member.world;
    if question.tag == "query_linked" {
        let group = jid(question, "jid").and_then(|jid| world.groups.find(&jid.user));
        let group = group.filter(|group| group.linked_parent.as_deref() == Some(id));
        let Some(group) = group else {
            return Ok(Reply::error(404, "item-not-found"));
        };
        return linked(describe(world, &group)?);
    }
    let mut everyone = std::collections::BTreeSet::new();
    let of_it = |group: &&std::sync::Arc<groups::Group>| {
        group.id == id || group.linked_parent.as_deref() == Some(id)
    };
    for group in world.groups.all().iter().filter(of_it) {
        everyone.extend(group.members.iter().cloned());
    }
    let parent = world.groups.find(id).context("no such community")?;
    let everyone = everyone.iter().map(|phone| parent.member(world, phone));
    let everyone: Result<Vec<Node>> = everyone.collect();
    let everyone = NodeBuilder::new("linked_groups_participants").children(everyone?);
    Ok(Reply::with(vec![everyone.build()]))
}

fn linked(group: Node) -> Result<Reply> {
    let linked = NodeBuilder::new("linked_group").children([group]).build();
    Ok(Reply::with(vec![linked]))
}

pub(super) fn set(member: &Member, id: &str, question: &NodeRef<'_>) -> Result<Reply> {
    let world = &member.world;
    let Some(community) = world.groups.find(id) else {
        return Ok(Reply::error(404, "item-not-found"));
    };
    match &*question.tag {
        "join_linked_group" => {
            let group = jid(question, "jid").context("no group")?;
            let me = Change::Join(member.account.phone.clone());
            return match groups::change(world, &group.user, Some(&member.account), true, me)? {
                Ok(outcome) => linked(describe(world, &outcome.group)?),
                Err(why) => Ok(refused(&why)),
            };
        }
        _ if !community.is_admin(&member.account.phone) => {
            return Ok(Reply::error(401, "not-authorized"));
        }
        "delete_parent" => {
            let children: Vec<String> = world
                .groups
                .all()
                .iter()
                .filter(|group| group.linked_parent.as_deref() == Some(id))
                .map(|group| group.id.clone())
                .collect();
            groups::unlink(world, id, &children, Some(&member.account))?;
            let gone = Change::Delete;
            return match groups::change(world, id, Some(&member.account), true, gone)? {
                Ok(outcome) => Ok(Reply::done().after(outcome.position)),
                Err(why) => Ok(refused(&why)),
            };
        }
        _ => {}
    }
    let together = question.tag == "links";
    let list = match together {
        true => question.get_optional_child("link").context("no <link>")?,
        false => question,
    };
    let ids: Vec<String> = list
        .get_children_by_tag("group")
        .filter_map(|group| Some(jid(group, "jid")?.user.to_string()))
        .collect();
    let done = match together {
        true => groups::link(world, id, &ids, Some(&member.account))?,
        false => groups::unlink(world, id, &ids, Some(&member.account))?,
    };
    let done = done.context("the community has just gone")?;
    let results = ids.iter().map(|id| {
        let group = NodeBuilder::new("group").attr("jid", Jid::group(id.as_str()));
        match done.refused.iter().find(|(refused, _)| refused == id) {
            Some((_, code)) => group.attr("error", *code).build(),
            None => group.build(),
        }
    });
    let answer = match together {
        true => {
            let link = NodeBuilder::new("link").attr("link_type", "sub_group");
            let link = link.children(results).build();
            NodeBuilder::new("links").children([link]).build()
        }
        false => NodeBuilder::new("unlink")
            .attr("unlink_type", "sub_group")
            .children(results)
            .build(),
    };
    Ok(Reply::with(vec![answer]).after(done.position))
}
