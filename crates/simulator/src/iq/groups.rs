//! `w:g2`: what groups are, new ones, and what clients change about them.

use anyhow::{Context as _, Result};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeRef};

use super::Reply;
use crate::groups::{self, Change, Forbidden, Group, Outcome, Setting, describe};
use crate::session::Member;
use crate::stanza::{jid, message_id, required, text};

mod community;

const MODES: [&str; 3] = [
    "member_add_mode",
    "member_link_mode",
    "member_share_group_history_mode",
];

pub(super) fn answer(member: &Member, node: &NodeRef<'_>, kind: &str) -> Result<Reply> {
    let question = node.children().and_then(|children| children.first());
    let question = question.context("an empty question about groups")?;
    let to = jid(node, "to").filter(|to| !to.user.is_empty());
    match (to, &*question.tag) {
        (None, "create") => create(member, question),
        (None, "participating") => participating(member),
        (None, "query") => several(member, question),
        (None, "leave") => leave(member, question),
        (None, "invite") => invited(member, question, kind == "set"),
        (None, _) => Ok(Reply::error(501, "feature-not-implemented")),
        (Some(group), _) if kind == "set" => set(member, &group.user, question),
        (Some(group), _) => get(member, &group.user, question),
    }
}

fn participating(member: &Member) -> Result<Reply> {
    let groups = member.world.groups.of(&member.account.phone);
    let groups = groups.iter().map(|group| describe(&member.world, group));
    let groups: Result<Vec<Node>> = groups.collect();
    let groups = NodeBuilder::new("groups").children(groups?).build();
    Ok(Reply::with(vec![groups]))
}

/// What a member is told about a group, or the code that a stranger gets.
fn described(member: &Member, id: &str) -> Result<Result<Node, (u16, &'static str)>> {
    match member.world.groups.find(id) {
        Some(group) if group.has(&member.account.phone) => Ok(Ok(describe(&member.world, &group)?)),
        Some(_) => Ok(Err((403, "forbidden"))),
        None => Ok(Err((404, "item-not-found"))),
    }
}

fn several(member: &Member, question: &NodeRef<'_>) -> Result<Reply> {
    let mut groups = Vec::new();
    for group in question.get_children_by_tag("group") {
        let group = jid(group, "jid").context("a group without jid")?;
        groups.push(match described(member, &group.user)? {
            Ok(node) => node,
            Err((code, _)) => NodeBuilder::new("group")
                .attr("id", group.user.as_str())
                .attr("error", code)
                .build(),
        });
    }
    let groups = NodeBuilder::new("groups").children(groups).build();
    Ok(Reply::with(vec![groups]))
}

fn get(member: &Member, id: &str, question: &NodeRef<'_>) -> Result<Reply> {
    match &*question.tag {
        "invite" => invite_code(member, id, false),
        "query_linked" | "linked_groups_participants" => community::get(member, id, question),
        "query" => Ok(match described(member, id)? {
            Ok(node) => Reply::with(vec![node]),
            Err((code, why)) => Reply::error(code, why),
        }),
        _ => Ok(Reply::error(501, "feature-not-implemented")),
    }
}

fn refused(why: &Forbidden) -> Reply {
    match why {
        Forbidden::NoGroup => Reply::error(404, "item-not-found"),
        Forbidden::NotAMember => Reply::error(403, "forbidden"),
        Forbidden::NotAnAdmin => Reply::error(401, "not-authorized"),
    }
}

fn set(member: &Member, id: &str, question: &NodeRef<'_>) -> Result<Reply> {
    let tag = &*question.tag;
    match tag {
        "invite" => return invite_code(member, id, true),
        "links" | "unlink" | "join_linked_group" | "delete_parent" => {
            return community::set(member, id, question);
        }
        "ack" => return Ok(Reply::done()),
        _ => {}
    }
    let Some(change) = wanted(member, question)? else {
        return Ok(Reply::error(501, "feature-not-implemented"));
    };
    if tag == "description" && !follows(member, id, question) {
        return Ok(Reply::error(409, "conflict"));
    }
    let outcome = groups::change(&member.world, id, Some(&member.account), true, change)?;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(why) => return Ok(refused(&why)),
    };
    let position = outcome.position;
    let answer = match tag {
        "add" | "remove" | "promote" | "demote" => {
            vec![people(member, &outcome, question)?]
        }
        _ => vec![],
    };
    Ok(Reply::with(answer).after(position))
}

/// Whether the client knew the description that it replaces.
fn follows(member: &Member, id: &str, question: &NodeRef<'_>) -> bool {
    let group = member.world.groups.find(id);
    let stands = group.and_then(|group| Some(group.description.as_ref()?.id.clone()));
    stands == text(question, "prev")
}

/// The change that a client asks for.
fn wanted(member: &Member, question: &NodeRef<'_>) -> Result<Option<Change>> {
    let content = |node: &NodeRef<'_>| node.content_as_string().map(|text| text.to_string());
    if let Some((setting, on)) = Setting::tagged(&question.tag) {
        return Ok(Some(Change::Set(setting, on)));
    }
    if let Some(mode) = MODES.into_iter().find(|mode| question.tag == **mode) {
        return Ok(Some(Change::Mode(
            mode,
            content(question).context("no mode")?,
        )));
    }
    Ok(Some(match &*question.tag {
        "add" => Change::Add(participants(member, question)?),
        "remove" => Change::Remove(participants(member, question)?),
        "promote" => Change::Promote(participants(member, question)?),
        "demote" => Change::Demote(participants(member, question)?),
        "subject" => Change::Subject(content(question).context("no subject")?),
        "description" => {
            let text = question.get_optional_child("body").and_then(content);
            Change::Description(required(question, "id")?, text)
        }
        "ephemeral" => Change::Ephemeral(required(question, "expiration")?.parse()?),
        "not_ephemeral" => Change::Ephemeral(0),
        "membership_approval_mode" => {
            let join = question.get_optional_child("group_join");
            let state = join.and_then(|join| text(join, "state"));
            Change::Approval(state.as_deref() == Some("on"))
        }
        _ => return Ok(None),
    }))
}

fn participants(member: &Member, question: &NodeRef<'_>) -> Result<Vec<String>> {
    let mut phones = Vec::new();
    for participant in question.get_children_by_tag("participant") {
        // Beside a LID nobody has been told of yet, the number.
        let number = jid(participant, "phone_number");
        let jid = jid(participant, "jid").context("a participant without jid")?;
        let account = member.world.resolve(number.as_ref().unwrap_or(&jid))?;
        phones.push(account.phone.clone());
    }
    Ok(phones)
}

/// What came of a change for each one who was named.
fn people(member: &Member, outcome: &Outcome, question: &NodeRef<'_>) -> Result<Node> {
    let mut people = Vec::new();
    for phone in participants(member, question)? {
        let account = member.world.account(&phone)?;
        let (name, beside) = outcome.group.names(&account);
        let mut one = NodeBuilder::new("participant").attr("jid", name);
        if outcome.group.by_lid {
            one = one.attr("phone_number", beside);
        }
        let error = outcome.refused.iter().find(|(who, _)| *who == phone);
        if let Some((_, code)) = error {
            one = one.attr("error", *code);
        }
        people.push(one.build());
    }
    Ok(NodeBuilder::new_dynamic(question.tag.to_string())
        .children(people)
        .build())
}

fn create(member: &Member, question: &NodeRef<'_>) -> Result<Reply> {
    let world = &member.world;
    let mut members = vec![member.account.phone.clone()];
    members.extend(participants(member, question)?);
    let subject = required(question, "subject")?;
    let linked_parent = question.get_optional_child("linked_parent");
    let linked_parent = linked_parent.and_then(|parent| jid(parent, "jid"));
    let mut changes = Vec::new();
    for child in question.children().unwrap_or_default() {
        // A group begins without what is left out or off.
        let known = child.tag != "participant" && child.tag != "parent";
        if known && let Some(change) = wanted(member, child)? {
            changes.push(change);
        }
    }
    let outcome = groups::create(world, &members, |group: &mut Group| {
        group.subject = subject;
        group.parent = question.get_optional_child("parent").is_some();
        for change in changes {
            group.begin_with(change);
        }
    })?;
    let mut position = outcome.position;
    if let Some(parent) = linked_parent {
        let child = [outcome.group.id.clone()];
        let linked = groups::link(world, &parent.user, &child, Some(&member.account))?;
        position = position.max(linked.map_or(0, |linked| linked.position));
    }
    let group = world.groups.find(&outcome.group.id);
    let group = group.context("the group has just gone")?;
    Ok(Reply::with(vec![describe(world, &group)?]).after(position))
}

fn leave(member: &Member, question: &NodeRef<'_>) -> Result<Reply> {
    let mut left = Vec::new();
    let mut position = 0;
    for group in question.get_children_by_tag("group") {
        let id = jid(group, "id").context("a group without id")?;
        let me = Change::Remove(vec![member.account.phone.clone()]);
        let outcome = groups::change(&member.world, &id.user, Some(&member.account), true, me)?;
        let mut answer = NodeBuilder::new("group").attr("id", id);
        match outcome {
            Ok(outcome) => position = outcome.position,
            Err(Forbidden::NoGroup) => answer = answer.attr("error", 404),
            Err(_) => answer = answer.attr("error", 403),
        }
        left.push(answer.build());
    }
    let leave = NodeBuilder::new("leave").children(left).build();
    Ok(Reply::with(vec![leave]).after(position))
}

/// The code in a group's link, made when it is first asked for.
fn invite_code(member: &Member, id: &str, renew: bool) -> Result<Reply> {
    let group = member.world.groups.find(id);
    let known = group.and_then(|group| group.invite_code.clone());
    let (code, position) = match known {
        Some(code) if !renew => (code, 0),
        _ => {
            let code = message_id();
            let change = Change::InviteCode(code.clone());
            let done = groups::change(&member.world, id, Some(&member.account), true, change)?;
            match done {
                Ok(outcome) => (code, outcome.position),
                Err(why) => return Ok(refused(&why)),
            }
        }
    };
    let invite = NodeBuilder::new("invite").attr("code", code).build();
    Ok(Reply::with(vec![invite]).after(position))
}

/// Somebody has a link: looks at the group, or joins it.
fn invited(member: &Member, question: &NodeRef<'_>, join: bool) -> Result<Reply> {
    let world = &member.world;
    let Some(group) = world.groups.invited(&required(question, "code")?) else {
        return Ok(Reply::error(410, "gone"));
    };
    if !join {
        return Ok(Reply::with(vec![describe(world, &group)?]));
    }
    let me = Change::Join(member.account.phone.clone());
    match groups::change(world, &group.id, Some(&member.account), true, me)? {
        Ok(outcome) if outcome.refused.is_empty() => {
            let joined = NodeBuilder::new("group")
                .attr("jid", Jid::group(group.id.as_str()))
                .build();
            Ok(Reply::with(vec![joined]).after(outcome.position))
        }
        Ok(_) => Ok(Reply::error(304, "not-modified")),
        Err(why) => Ok(refused(&why)),
    }
}
