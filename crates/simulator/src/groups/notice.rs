//! How a group is described, and how its members are told of changes.

use anyhow::Result;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};

use super::{Change, Group};
use crate::account::Account;
use crate::stanza::{empty, message_id};
use crate::world::{World, unix_time};

/// What members are told.
pub(super) enum Told<'a> {
    Created,
    /// Whoever comes later gets the whole description too.
    Joined,
    Changed(&'a Change),
    /// With which other group, of which kind to this one, and whether it is so now.
    Linked(&'a Group, &'static str, bool),
}

/// `<notification type=w:gp2>` to all devices of these numbers.
pub(super) fn told(
    world: &World,
    group: &Group,
    whom: &[String],
    author: &Account,
    what: &Told<'_>,
) -> Result<()> {
    if whom.is_empty() {
        return Ok(());
    }
    let (by, beside) = group.names(author);
    let mut notification = NodeBuilder::new("notification")
        .attr("from", Jid::group(group.id.as_str()))
        .attr("type", "w:gp2")
        .attr("id", message_id())
        .attr("t", unix_time())
        .attr("participant", by)
        .attr("notify", author.standing().name)
        .attr("addressing_mode", group.addressing());
    if group.by_lid {
        notification = notification.attr("participant_pn", beside);
    }
    let notification = notification
        .children([what.stanza(world, group, author)?])
        .build();
    for phone in whom {
        let Some(account) = world.find(phone) else {
            continue;
        };
        for device in account.devices() {
            device.post(world, &notification);
        }
    }
    Ok(())
}

impl Told<'_> {
    fn stanza(&self, world: &World, group: &Group, author: &Account) -> Result<Node> {
        Ok(match self {
            Self::Created => NodeBuilder::new("create")
                .attr("type", "new")
                .children([describe(world, group)?])
                .build(),
            Self::Joined => NodeBuilder::new("create")
                .children([describe(world, group)?])
                .build(),
            Self::Changed(change) => changed(world, group, change, author)?,
            Self::Linked(other, kind, true) => NodeBuilder::new("link")
                .attr("link_type", *kind)
                .children([briefly(other)])
                .build(),
            Self::Linked(other, kind, false) => NodeBuilder::new("unlink")
                .attr("unlink_type", *kind)
                .attr("unlink_reason", "unlink_group")
                .children([briefly(other)])
                .build(),
        })
    }
}

fn briefly(group: &Group) -> Node {
    NodeBuilder::new("group")
        .attr("jid", Jid::group(group.id.as_str()))
        .attr("subject", group.subject.as_str())
        .attr("s_t", group.created)
        .build()
}

fn changed(world: &World, group: &Group, change: &Change, author: &Account) -> Result<Node> {
    let people = |tag: &'static str, who: &[String]| -> Result<NodeBuilder> {
        let who: Result<Vec<Node>> = who.iter().map(|who| group.member(world, who)).collect();
        Ok(NodeBuilder::new(tag).children(who?))
    };
    Ok(match change {
        Change::Add(who) => people("add", who)?.build(),
        Change::Join(who) => people("add", std::slice::from_ref(who))?
            .attr("reason", "invite")
            .build(),
        Change::Remove(who) => people("remove", who)?.build(),
        Change::Promote(who) => people("promote", who)?.build(),
        Change::Demote(who) => people("demote", who)?.build(),
        Change::Subject(subject) => NodeBuilder::new("subject")
            .attr("subject", subject.as_str())
            .attr("s_o", group.names(author).0)
            .attr("s_t", unix_time())
            .build(),
        Change::Description(id, None) => NodeBuilder::new("description")
            .attr("id", id.as_str())
            .children([empty("delete")])
            .build(),
        Change::Description(_, Some(_)) => description(world, group)?.unwrap_or_else(|| {
            // Someone else was quicker; they tell of theirs.
            empty("description")
        }),
        Change::Set(setting, on) => empty(if *on { setting.on } else { setting.off }),
        Change::Mode(mode, value) => NodeBuilder::new(mode)
            .string_content(value.as_str())
            .build(),
        Change::Ephemeral(0) => empty("not_ephemeral"),
        Change::Ephemeral(seconds) => NodeBuilder::new("ephemeral")
            .attr("expiration", *seconds)
            .build(),
        Change::Approval(on) => approval(*on),
        Change::InviteCode(code) => NodeBuilder::new("invite")
            .attr("code", code.as_str())
            .build(),
        Change::Delete => empty("delete"),
    })
}

fn approval(on: bool) -> Node {
    let state = if on { "on" } else { "off" };
    let join = NodeBuilder::new("group_join").attr("state", state).build();
    NodeBuilder::new("membership_approval_mode")
        .children([join])
        .build()
}

fn description(world: &World, group: &Group) -> Result<Option<Node>> {
    let Some(description) = &group.description else {
        return Ok(None);
    };
    let (by, beside) = group.names(&*world.account(&description.set.by)?);
    let mut node = NodeBuilder::new("description")
        .attr("id", description.id.as_str())
        .attr("participant", by)
        .attr("t", description.set.at);
    if group.by_lid {
        node = node.attr("participant_pn", beside);
    }
    let body = NodeBuilder::new("body").string_content(description.text.as_str());
    Ok(Some(node.children([body.build()]).build()))
}

impl Group {
    fn addressing(&self) -> &'static str {
        if self.by_lid { "lid" } else { "pn" }
    }

    /// How someone is named in this group, and the name beside it.
    pub(crate) fn names(&self, account: &Account) -> (Jid, Jid) {
        match self.by_lid {
            true => (account.lid_jid(), account.jid()),
            false => (account.jid(), account.lid_jid()),
        }
    }

    /// `<participant>`
    pub(crate) fn member(&self, world: &World, phone: &str) -> Result<Node> {
        let account = world.account(phone)?;
        let (name, beside) = self.names(&account);
        let participant = NodeBuilder::new("participant")
            .attr("jid", name)
            .attr(if self.by_lid { "phone_number" } else { "lid" }, beside);
        Ok(match (self.creator == phone, self.is_admin(phone)) {
            (true, true) => participant.attr("type", "superadmin").build(),
            (_, true) => participant.attr("type", "admin").build(),
            _ => participant.build(),
        })
    }
}

/// `<group>` with all that is known of it.
pub(crate) fn describe(world: &World, group: &Group) -> Result<Node> {
    let (creator, creator_beside) = group.names(&*world.account(&group.creator)?);
    let (named_by, named_at) = match &group.subject_set {
        Some(set) => (group.names(&*world.account(&set.by)?).0, set.at),
        None => (creator.clone(), group.created),
    };
    let members = group.members.iter();
    let children: Result<Vec<Node>> = members.map(|phone| group.member(world, phone)).collect();
    let mut children = children?;
    children.extend(description(world, group)?);
    for setting in &group.settings {
        if let Some((setting, _)) = super::Setting::tagged(setting) {
            children.push(empty(setting.on));
        }
    }
    for (mode, value) in &group.modes {
        let mode = NodeBuilder::new_dynamic(mode.clone()).string_content(value.as_str());
        children.push(mode.build());
    }
    if group.ephemeral > 0 {
        let ephemeral = NodeBuilder::new("ephemeral").attr("expiration", group.ephemeral);
        children.push(ephemeral.build());
    }
    if group.approval {
        children.push(approval(true));
    }
    if group.parent {
        children.push(empty("parent"));
    }
    if let Some(parent) = &group.linked_parent {
        let parent = NodeBuilder::new("linked_parent").attr("jid", Jid::group(parent.as_str()));
        children.push(parent.build());
    }
    let mut node = NodeBuilder::new("group")
        .attr("id", group.id.as_str())
        .attr("subject", group.subject.as_str())
        .attr("creation", group.created)
        .attr("creator", creator)
        .attr("s_t", named_at)
        .attr("s_o", named_by)
        .attr("addressing_mode", group.addressing())
        .attr("size", group.members.len());
    if group.by_lid {
        node = node.attr("creator_pn", creator_beside);
    }
    Ok(node.children(children).build())
}
