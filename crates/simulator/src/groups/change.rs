//! What can be changed about a group, by whom, and who hears of it.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::notice::{Told, told};
use super::{Authored, Description, Group};
use crate::account::Account;
use crate::journal::Position;
use crate::world::{World, unix_time};

/// Something that is on or off, with the tags that say so; the first one also stands in the
/// description of a group where it is on.
#[derive(Debug, PartialEq)]
pub(crate) struct Setting {
    pub(crate) on: &'static str,
    pub(crate) off: &'static str,
}

impl Setting {
    pub(crate) const ANNOUNCEMENT: &'static Self = &Self::ALL[0];
    pub(crate) const LOCKED: &'static Self = &Self::ALL[1];
    const ALL: [Self; 6] = [
        Self::of("announcement", "not_announcement"),
        Self::of("locked", "unlocked"),
        Self::of("no_frequently_forwarded", "frequently_forwarded_ok"),
        Self::of("allow_admin_reports", "not_allow_admin_reports"),
        Self::of("group_history", "no_group_history"),
        Self::of(
            "allow_non_admin_sub_group_creation",
            "not_allow_non_admin_sub_group_creation",
        ),
    ];

    const fn of(on: &'static str, off: &'static str) -> Self {
        Self { on, off }
    }

    /// The setting that a tag changes, and to what.
    pub(crate) fn tagged(tag: &str) -> Option<(&'static Self, bool)> {
        static ALL: [Setting; 6] = Setting::ALL;
        let setting = ALL.iter().find(|s| s.on == tag || s.off == tag)?;
        Some((setting, setting.on == tag))
    }
}

/// A change; people are phone numbers.
#[derive(Clone)]
pub(crate) enum Change {
    Add(Vec<String>),
    /// Joined by a link: nobody has to be an admin for it.
    Join(String),
    Remove(Vec<String>),
    Promote(Vec<String>),
    Demote(Vec<String>),
    Subject(String),
    /// Its id, and the text; `None` deletes it.
    Description(String, Option<String>),
    Set(&'static Setting, bool),
    Mode(&'static str, String),
    Ephemeral(u32),
    Approval(bool),
    /// A new link; the one before is void.
    InviteCode(String),
    Delete,
}

/// Why a client may not.
#[derive(Debug, PartialEq)]
pub(crate) enum Forbidden {
    NoGroup,
    NotAMember,
    NotAnAdmin,
}

/// What has happened.
pub(crate) struct Outcome {
    pub(crate) group: Arc<Group>,
    /// Of those who were named, the ones that it does not work for, and the code that says why.
    pub(crate) refused: Vec<(String, u16)>,
    pub(crate) position: Position,
}

/// Changes a group and tells its members. Clients (`checked`) need the right to it.
pub(crate) fn change(
    world: &World,
    id: &str,
    by: Option<&Account>,
    checked: bool,
    change: Change,
) -> Result<Result<Outcome, Forbidden>> {
    let Some(before) = world.groups.find(id) else {
        return Ok(Err(Forbidden::NoGroup));
    };
    let author = match by {
        Some(by) => world.account(&by.phone)?,
        None => world.account(spokesman(&before))?,
    };
    if checked && let Err(forbidden) = may(&before, &author.phone, &change) {
        return Ok(Err(forbidden));
    }
    if let Change::Delete = change {
        let position = world.groups.remove(id, &world.journal);
        told(
            world,
            &before,
            &before.members,
            &author,
            &Told::Changed(&change),
        )?;
        return Ok(Ok(Outcome {
            group: before,
            refused: vec![],
            position,
        }));
    }
    let edited = world.groups.edit(id, &world.journal, |group| {
        group.apply(change, &author.phone)
    });
    let ((done, refused), group, position) = edited.context("the group has just gone")?;
    if let Some(done) = done {
        told(
            world,
            &group,
            &before.members,
            &author,
            &Told::Changed(&done),
        )?;
        let newcomers: Vec<String> = group
            .members
            .iter()
            .filter(|member| !before.has(member))
            .cloned()
            .collect();
        told(world, &group, &newcomers, &author, &Told::Joined)?;
    }
    Ok(Ok(Outcome {
        group,
        refused,
        position,
    }))
}

/// Who is taken for the author of a change that nobody in particular makes.
pub(super) fn spokesman(group: &Group) -> &str {
    let creator = group.has(&group.creator).then_some(&group.creator);
    let admin = || group.members.iter().find(|member| group.is_admin(member));
    let anyone = || group.members.first();
    let one = creator.or_else(admin).or_else(anyone);
    one.unwrap_or(&group.creator)
}

fn may(group: &Group, author: &str, change: &Change) -> Result<(), Forbidden> {
    if let Change::Join(_) = change {
        return Ok(());
    }
    if !group.has(author) {
        return Err(Forbidden::NotAMember);
    }
    let everyone = match change {
        Change::Remove(who) => who.iter().all(|who| who == author),
        Change::Add(_) => group
            .modes
            .get("member_add_mode")
            .is_none_or(|mode| mode == "all_member_add"),
        Change::Subject(_) | Change::Description(..) | Change::Ephemeral(_) => {
            !group.settings.contains(Setting::LOCKED.on)
        }
        _ => false,
    };
    match everyone || group.is_admin(author) {
        true => Ok(()),
        false => Err(Forbidden::NotAnAdmin),
    }
}

impl Group {
    /// A change that is part of its making, which nobody is told of separately.
    pub(crate) fn begin_with(&mut self, change: Change) {
        let creator = self.creator.clone();
        self.apply(change, &creator);
    }

    /// What of the change is one, and for whom it isn't.
    fn apply(&mut self, change: Change, by: &str) -> (Option<Change>, Vec<(String, u16)>) {
        let now = unix_time();
        let set = Authored {
            by: by.to_owned(),
            at: now,
        };
        match &change {
            Change::Add(who) => {
                let (known, new) = who.iter().cloned().partition(|who| self.has(who));
                self.members.extend(Vec::clone(&new));
                return named(Change::Add, new, known, 409);
            }
            Change::Join(who) => match self.has(who) {
                true => return (None, vec![(who.clone(), 304)]),
                false => self.members.push(who.clone()),
            },
            Change::Remove(who) => {
                let (here, others): (Vec<_>, _) =
                    who.iter().cloned().partition(|who| self.has(who));
                self.members.retain(|member| !here.contains(member));
                self.admins.retain(|admin| !here.contains(admin));
                return named(Change::Remove, here, others, 404);
            }
            Change::Promote(who) => {
                let (here, others): (Vec<_>, _) =
                    who.iter().cloned().partition(|who| self.has(who));
                self.admins.extend(here.iter().cloned());
                return named(Change::Promote, here, others, 404);
            }
            Change::Demote(who) => {
                let (here, others): (Vec<_>, _) = who
                    .iter()
                    .cloned()
                    .partition(|who| self.admins.contains(who));
                self.admins.retain(|admin| !here.contains(admin));
                return named(Change::Demote, here, others, 404);
            }
            Change::Subject(subject) => {
                self.subject.clone_from(subject);
                self.subject_set = Some(set);
            }
            Change::Description(id, text) => {
                self.description = text.clone().map(|text| Description {
                    id: id.clone(),
                    text,
                    set,
                });
            }
            Change::Set(setting, true) => {
                self.settings.insert(setting.on.to_owned());
            }
            Change::Set(setting, false) => {
                self.settings.remove(setting.on);
            }
            Change::Mode(mode, value) => {
                self.modes.insert((*mode).to_owned(), value.clone());
            }
            Change::Ephemeral(seconds) => self.ephemeral = *seconds,
            Change::Approval(on) => self.approval = *on,
            Change::InviteCode(code) => self.invite_code = Some(code.clone()),
            Change::Delete => {}
        }
        (Some(change), vec![])
    }
}

/// A change of those it works for, and the code for the others.
fn named(
    change: impl FnOnce(Vec<String>) -> Change,
    who: Vec<String>,
    others: Vec<String>,
    code: u16,
) -> (Option<Change>, Vec<(String, u16)>) {
    let others = others.into_iter().map(|who| (who, code)).collect();
    let done = (!who.is_empty()).then(|| change(who));
    (done, others)
}
