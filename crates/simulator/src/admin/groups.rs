//! Groups, made and changed by those who are in them.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Answer, Refused, group_id, parse, written};
use crate::account::Account;
use crate::groups::{self, Authored, Change, Description, Forbidden, Group, Outcome, Setting};
use crate::stanza::message_id;
use crate::world::{World, phone_number, unix_time};

/// As many as the real ones take.
const MAX_MEMBERS: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    subject: String,
    /// The first one is its creator.
    members: Vec<String>,
    #[serde(default)]
    admins: Vec<String>,
    description: Option<String>,
    #[serde(default)]
    announce: bool,
    #[serde(default)]
    locked: bool,
    #[serde(default)]
    ephemeral: u32,
    #[serde(default)]
    addressing: GroupAddressing,
    #[serde(default)]
    community: bool,
    /// A community's id.
    parent: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GroupAddressing {
    #[default]
    Pn,
    Lid,
}

fn numbers(numbers: &[String]) -> Result<Vec<String>, Refused> {
    if !(1..=MAX_MEMBERS).contains(&numbers.len()) {
        return Err(Refused::bad_request(format!(
            "members: 1 to {MAX_MEMBERS} numbers"
        )));
    }
    let number = |number: &String| phone_number(number).map_err(Refused::bad_request);
    numbers.iter().map(number).collect()
}

fn shown(group: &Group) -> Value {
    json!({
        "group": format!("{}@g.us", group.id),
        "subject": group.subject,
        "creator": group.creator,
        "members": group.members,
        "admins": group.members.iter().filter(|m| group.is_admin(m)).collect::<Vec<_>>(),
        "description": group.description.as_ref().map(|description| &description.text),
        "settings": group.settings,
        "modes": group.modes,
        "ephemeral": group.ephemeral,
        "approval": group.approval,
        "addressing": if group.by_lid { "lid" } else { "pn" },
        "community": group.parent,
        "parent": group.linked_parent.as_ref().map(|parent| format!("{parent}@g.us")),
        "invite_code": group.invite_code,
    })
}

async fn done(world: &World, outcome: Outcome) -> Answer {
    written(world).await?;
    let mut answer = shown(&outcome.group);
    if !outcome.refused.is_empty() {
        let refused = outcome.refused.iter();
        let refused = refused.map(|(who, code)| (who.clone(), json!(code)));
        answer["refused"] = Value::Object(refused.collect());
    }
    Ok(HttpResponse::Ok().json(answer))
}

pub(super) async fn create(world: web::Data<World>, body: web::Bytes) -> Answer {
    let new: New = parse(&body)?;
    let members = numbers(&new.members)?;
    for member in &members {
        world.account(member).map_err(Refused::bad_request)?;
    }
    let mut admins = BTreeSet::new();
    for admin in &new.admins {
        admins.insert(phone_number(admin).map_err(Refused::bad_request)?);
    }
    if let Some(stranger) = admins.iter().find(|admin| !members.contains(admin)) {
        return Err(Refused::bad_request(format!("{stranger} is not a member")));
    }
    let parent = new.parent.as_deref().map(group_id);
    if let Some(parent) = parent
        && world.groups.find(parent).is_none()
    {
        return Err(Refused::not_found(format!("no group {parent}")));
    }
    let outcome = groups::create(&world, &members, |group| {
        group.subject.clone_from(&new.subject);
        group.admins = admins;
        group.by_lid = matches!(new.addressing, GroupAddressing::Lid);
        group.parent = new.community;
        group.ephemeral = new.ephemeral;
        let settings = [
            (Setting::ANNOUNCEMENT, new.announce),
            (Setting::LOCKED, new.locked),
        ];
        let on = settings.iter().filter(|(_, on)| *on);
        group.settings = on.map(|(setting, _)| setting.on.to_owned()).collect();
        group.description = new.description.clone().map(|text| Description {
            id: message_id(),
            text,
            set: Authored {
                by: group.creator.clone(),
                at: unix_time(),
            },
        });
    });
    let mut outcome = outcome.map_err(Refused::conflict)?;
    if let Some(parent) = parent {
        let child = [outcome.group.id.clone()];
        groups::link(&world, parent, &child, None).map_err(Refused::conflict)?;
        if let Some(group) = world.groups.find(&outcome.group.id) {
            outcome.group = group;
        }
    }
    done(&world, outcome).await
}

pub(super) async fn list(world: web::Data<World>) -> HttpResponse {
    let mut groups = world.groups.all();
    groups.sort_by(|a, b| a.id.cmp(&b.id));
    let groups: Vec<Value> = groups.iter().map(|group| shown(group)).collect();
    HttpResponse::Ok().json(groups)
}

pub(super) async fn show(world: web::Data<World>, id: web::Path<String>) -> Answer {
    let group = world.groups.find(group_id(&id));
    let group = group.ok_or_else(|| Refused::not_found(format!("no group {id}")))?;
    Ok(HttpResponse::Ok().json(shown(&group)))
}

/// Who does it; else the creator, or another admin.
#[derive(Default, Deserialize)]
struct By {
    by: Option<String>,
}

impl By {
    fn author(&self, world: &World) -> Result<Option<Arc<Account>>, Refused> {
        let Some(by) = &self.by else {
            return Ok(None);
        };
        let by = phone_number(by).map_err(Refused::bad_request)?;
        world.account(&by).map(Some).map_err(Refused::bad_request)
    }
}

macro_rules! bodies {
    ($($name:ident { $field:ident: $type:ty }),+ $(,)?) => {
        $(#[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $field: $type,
            by: Option<String>,
        })+
    };
}

bodies! {
    Members { members: Vec<String> },
    Subject { subject: String },
    Text { description: Option<String> },
    Switch { on: bool },
    Seconds { seconds: u32 },
    Mode { mode: String },
    Subgroups { groups: Vec<String> },
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {
    by: Option<String>,
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    parse(if body.is_empty() { b"{}" } else { body })
}

/// The change that the last part of the path names, and who makes it.
fn wanted(what: &str, body: &[u8]) -> Result<(Change, By), Refused> {
    let members = |change: fn(Vec<String>) -> Change| -> Result<_, Refused> {
        let body: Members = read(body)?;
        Ok((change(numbers(&body.members)?), By { by: body.by }))
    };
    let switch = |change: fn(bool) -> Change| -> Result<_, Refused> {
        let body: Switch = read(body)?;
        Ok((change(body.on), By { by: body.by }))
    };
    Ok(match what {
        "add" => members(Change::Add)?,
        "remove" => members(Change::Remove)?,
        "promote" => members(Change::Promote)?,
        "demote" => members(Change::Demote)?,
        "announce" => switch(|on| Change::Set(Setting::ANNOUNCEMENT, on))?,
        "locked" => switch(|on| Change::Set(Setting::LOCKED, on))?,
        "approval" => switch(Change::Approval)?,
        "subject" => {
            let body: Subject = read(body)?;
            (Change::Subject(body.subject), By { by: body.by })
        }
        "description" => {
            let body: Text = read(body)?;
            (
                Change::Description(message_id(), body.description),
                By { by: body.by },
            )
        }
        "ephemeral" => {
            let body: Seconds = read(body)?;
            (Change::Ephemeral(body.seconds), By { by: body.by })
        }
        "member-add-mode" => {
            let body: Mode = read(body)?;
            (
                Change::Mode("member_add_mode", body.mode),
                By { by: body.by },
            )
        }
        "invite-code" => {
            let body: Nothing = read(body)?;
            (Change::InviteCode(message_id()), By { by: body.by })
        }
        "delete" => {
            let body: Nothing = read(body)?;
            (Change::Delete, By { by: body.by })
        }
        other => return Err(Refused::not_found(format!("nothing is called {other}"))),
    })
}

/// A change that concerns one group, or its being part of a community.
pub(super) async fn change(
    world: web::Data<World>,
    path: web::Path<(String, String)>,
    body: web::Bytes,
) -> Answer {
    let (id, what) = path.into_inner();
    let id = group_id(&id);
    let missing = || Refused::not_found(format!("no group {id}"));
    if what == "link" || what == "unlink" {
        let body: Subgroups = read(&body)?;
        let by = By { by: body.by }.author(&world)?;
        let children = body.groups.iter().map(|id| group_id(id).to_owned());
        let children: Vec<String> = children.collect();
        let outcome = match what.as_str() {
            "link" => groups::link(&world, id, &children, by.as_deref()),
            _ => groups::unlink(&world, id, &children, by.as_deref()),
        };
        let outcome = outcome.map_err(Refused::conflict)?;
        return done(&world, outcome.ok_or_else(missing)?).await;
    }
    let (change, by) = wanted(&what, &body)?;
    let by = by.author(&world)?;
    let outcome = groups::change(&world, id, by.as_deref(), false, change);
    match outcome.map_err(Refused::conflict)? {
        Ok(outcome) => done(&world, outcome).await,
        Err(Forbidden::NoGroup) => Err(missing()),
        Err(why) => Err(Refused::conflict(format!("{why:?}"))),
    }
}
