//! New groups, and groups that become part of a community or leave it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::change::spokesman;
use super::notice::{Told, told};
use super::{Group, Outcome};
use crate::account::Account;
use crate::world::{World, unix_time};

/// Makes a group as it is given, whatever others are called, and tells all who are in it. The
/// first member is its creator.
pub(crate) fn create(
    world: &World,
    members: &[String],
    fill: impl FnOnce(&mut Group),
) -> Result<Outcome> {
    let mut seen = BTreeSet::new();
    let members: Vec<&str> = members
        .iter()
        .map(String::as_str)
        .filter(|member| seen.insert(*member))
        .collect();
    let mut group = Group::new("", &members, unix_time());
    fill(&mut group);
    let (group, position) = world.groups.add(group, &world.journal);
    let author = world.account(&group.creator)?;
    told(world, &group, &group.members, &author, &Told::Created)?;
    Ok(Outcome {
        group,
        refused: vec![],
        position,
    })
}

/// Makes groups part of a community. Those that aren't there come back with a code.
pub(crate) fn link(
    world: &World,
    community: &str,
    groups: &[String],
    by: Option<&Account>,
) -> Result<Option<Outcome>> {
    relate(world, community, groups, by, true)
}

/// Takes groups out of a community.
pub(crate) fn unlink(
    world: &World,
    community: &str,
    groups: &[String],
    by: Option<&Account>,
) -> Result<Option<Outcome>> {
    relate(world, community, groups, by, false)
}

fn relate(
    world: &World,
    community: &str,
    groups: &[String],
    by: Option<&Account>,
    together: bool,
) -> Result<Option<Outcome>> {
    let Some(parent) = world.groups.find(community) else {
        return Ok(None);
    };
    let author = match by {
        Some(by) => world.account(&by.phone)?,
        None => world.account(spokesman(&parent))?,
    };
    let mut outcome = Outcome {
        group: parent.clone(),
        refused: vec![],
        position: 0,
    };
    for id in groups {
        let of_it = world.groups.find(id).map(|group| {
            let linked = group.linked_parent.as_deref() == Some(community);
            linked != together
        });
        if of_it != Some(true) {
            let code = if of_it.is_none() { 404 } else { 409 };
            outcome.refused.push((id.clone(), code));
            continue;
        }
        let edited = world.groups.edit(id, &world.journal, |group| {
            group.linked_parent = together.then(|| community.to_owned());
        });
        let ((), child, position) = edited.context("the group has just gone")?;
        outcome.position = position;
        let to_child = Told::Linked(&parent, "parent_group", together);
        told(world, &child, &child.members, &author, &to_child)?;
        let to_parent = Told::Linked(&child, "sub_group", together);
        told(world, &parent, &parent.members, &author, &to_parent)?;
    }
    Ok(Some(outcome))
}
