//! Who is there, and who types. Only those hear it who are connected: nothing of it waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeRef, Server};

use crate::account::Account;
use crate::ledger::rfc3339;
use crate::session::Member;
use crate::stanza::{jid, text};
use crate::world::{World, unix_millis};

/// So many people may one device watch.
const MAX_WATCHED: usize = 10_000;
/// So much is remembered of what devices said.
const MAX_HEARD: usize = 1_000;

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Available,
    Unavailable,
    Composing,
    Recording,
    Paused,
}

/// What a device said of itself.
#[derive(Clone, Serialize)]
pub(crate) struct Heard {
    from: String,
    /// The chat in which it types.
    to: Option<String>,
    state: State,
    at: String,
}

/// Phone and number of a device.
type DeviceName = (String, u16);

#[derive(Default)]
pub(crate) struct Presences {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Who is there, of those who said so.
    available: HashSet<String>,
    /// When the others were there last, unix seconds.
    last_seen: HashMap<String, i64>,
    watchers: HashMap<String, HashSet<DeviceName>>,
    watched: HashMap<DeviceName, HashSet<String>>,
    heard: VecDeque<Heard>,
}

impl Presences {
    pub(crate) fn heard(&self) -> Vec<Heard> {
        let inner = self.inner.lock().expect("no panic here");
        inner.heard.iter().cloned().collect()
    }

    /// Who is watched by which device.
    pub(crate) fn watched(&self) -> Vec<(DeviceName, Vec<String>)> {
        let inner = self.inner.lock().expect("no panic here");
        let all = inner.watched.iter();
        all.map(|(device, watched)| (device.clone(), watched.iter().cloned().collect()))
            .collect()
    }

    fn hear(&self, from: &str, to: Option<&Jid>, state: State) {
        let mut inner = self.inner.lock().expect("no panic here");
        if inner.heard.len() == MAX_HEARD {
            inner.heard.pop_front();
        }
        inner.heard.push_back(Heard {
            from: from.to_owned(),
            to: to.map(ToString::to_string),
            state,
            at: rfc3339(unix_millis()),
        });
    }

    fn watch(&self, device: DeviceName, whom: &str) {
        let mut inner = self.inner.lock().expect("no panic here");
        let watched = inner.watched.entry(device.clone()).or_default();
        if watched.len() < MAX_WATCHED && watched.insert(whom.to_owned()) {
            let watchers = inner.watchers.entry(whom.to_owned()).or_default();
            watchers.insert(device);
        }
    }

    fn unwatch(&self, device: &DeviceName, whom: &str) {
        let mut inner = self.inner.lock().expect("no panic here");
        if let Some(watched) = inner.watched.get_mut(device) {
            watched.remove(whom);
        }
        inner.forget(device, whom);
    }

    /// The device has hung up: it watches nobody any more. Whether its account was there.
    fn left(&self, phone: &str, device: u16) -> bool {
        let mut inner = self.inner.lock().expect("no panic here");
        let name = (phone.to_owned(), device);
        for whom in inner.watched.remove(&name).into_iter().flatten() {
            inner.forget(&name, &whom);
        }
        inner.available.contains(phone)
    }

    fn note(&self, phone: &str, there: bool, last_seen: i64) {
        let mut inner = self.inner.lock().expect("no panic here");
        if there {
            inner.available.insert(phone.to_owned());
        } else {
            inner.available.remove(phone);
            inner.last_seen.insert(phone.to_owned(), last_seen);
        }
    }

    /// `<presence>` of somebody who has ever said something.
    fn of(&self, account: &Account, by_lid: bool) -> Option<Node> {
        let inner = self.inner.lock().expect("no panic here");
        let there = inner.available.contains(&account.phone);
        let last = inner.last_seen.get(&account.phone).copied();
        (there || last.is_some()).then(|| presence(account, by_lid, there, last))
    }
}

impl Inner {
    fn forget(&mut self, device: &DeviceName, whom: &str) {
        if let Some(watchers) = self.watchers.get_mut(whom) {
            watchers.remove(device);
            if watchers.is_empty() {
                self.watchers.remove(whom);
            }
        }
    }
}

fn presence(account: &Account, by_lid: bool, there: bool, last: Option<i64>) -> Node {
    let from = if by_lid {
        account.lid_jid()
    } else {
        account.jid()
    };
    let presence = NodeBuilder::new("presence").attr("from", from);
    match (there, last) {
        (true, _) => presence.attr("type", "available").build(),
        (false, Some(last)) => presence
            .attr("type", "unavailable")
            .attr("last", last)
            .build(),
        (false, None) => presence
            .attr("type", "unavailable")
            .attr("last", "deny")
            .build(),
    }
}

/// Tells those who watch them, or one account's devices; how many devices that were.
pub(crate) fn show(
    world: &World,
    account: &Account,
    there: bool,
    last_seen: i64,
    to: Option<&Account>,
) -> usize {
    world.presences.note(&account.phone, there, last_seen);
    let stanza = presence(account, false, there, Some(last_seen));
    if let Some(to) = to {
        return send(to, &stanza);
    }
    let watchers: Vec<DeviceName> = {
        let inner = world.presences.inner.lock().expect("no panic here");
        let watchers = inner.watchers.get(&account.phone).into_iter().flatten();
        watchers.cloned().collect()
    };
    let mut told = 0;
    for (phone, device) in watchers {
        let device = world
            .find(&phone)
            .and_then(|account| account.device(device));
        if let Some(device) = device
            && let Some(outlet) = &device.lock().outlet
        {
            outlet.send(&stanza, 0);
            told += 1;
        }
    }
    told
}

fn send(to: &Account, stanza: &Node) -> usize {
    let mut told = 0;
    for device in to.devices() {
        if let Some(outlet) = &device.lock().outlet {
            outlet.send(stanza, 0);
            told += 1;
        }
    }
    told
}

/// A device has hung up; with the last one its account is away.
pub(crate) fn left(world: &World, account: &Account, device: u16) {
    let was_there = world.presences.left(&account.phone, device);
    let mut others = account.devices().into_iter();
    if was_there && others.all(|device| device.lock().outlet.is_none()) {
        show(world, account, false, unix_millis() / 1000, None);
    }
}

/// Somebody types, or has stopped, in a chat with the account or in a group.
pub(crate) fn types(who: &Account, group: Option<&Jid>, state: State, to: &Account) -> usize {
    let child = match state {
        State::Composing => NodeBuilder::new("composing").build(),
        State::Recording => NodeBuilder::new("composing").attr("media", "audio").build(),
        _ => NodeBuilder::new("paused").build(),
    };
    let stanza = NodeBuilder::new("chatstate");
    let stanza = match group {
        Some(group) => stanza
            .attr("from", group.clone())
            .attr("participant", who.jid()),
        None => stanza.attr("from", who.jid()),
    };
    send(to, &stanza.children([child]).build())
}

/// `<presence>` of a client: of itself, or about someone whom it wants to watch.
pub(crate) fn presence_heard(member: &Member, node: &NodeRef<'_>) -> Result<()> {
    let world = &member.world;
    let device = (member.account.phone.clone(), member.device.id);
    match text(node, "type").as_deref() {
        Some("subscribe") => {
            let to = jid(node, "to").context("a subscription to nobody")?;
            let whom = world.resolve(&to)?;
            world.presences.watch(device, &whom.phone);
            if let Some(stanza) = world.presences.of(&whom, to.server == Server::Lid) {
                member.reply(&stanza, 0);
            }
        }
        Some("unsubscribe") => {
            let to = jid(node, "to").context("a subscription to nobody")?;
            let whom = world.resolve(&to)?;
            world.presences.unwatch(&device, &whom.phone);
        }
        kind => {
            let there = kind != Some("unavailable");
            let state = if there {
                State::Available
            } else {
                State::Unavailable
            };
            world.presences.hear(&member.account.phone, None, state);
            let now = unix_millis() / 1000;
            show(world, &member.account, there, now, None);
        }
    }
    Ok(())
}

/// `<chatstate>` of a client: it types to someone, or in a group.
pub(crate) fn chatstate_heard(member: &Member, node: &NodeRef<'_>) -> Result<()> {
    let world = &member.world;
    let to = jid(node, "to").context("typing to nobody")?;
    let child = node.children().and_then(|children| children.first());
    let state = match child {
        Some(child) if child.tag == "composing" => match text(child, "media") {
            Some(_) => State::Recording,
            None => State::Composing,
        },
        _ => State::Paused,
    };
    world
        .presences
        .hear(&member.account.phone, Some(&to), state);
    if to.server != Server::Group {
        types(&member.account, None, state, &*world.resolve(&to)?);
        return Ok(());
    }
    let group = world.groups.find(&to.user).context("an unknown group")?;
    for phone in group.members.iter().filter(|m| **m != member.account.phone) {
        if let Some(account) = world.find(phone) {
            types(&member.account, Some(&to), state, &account);
        }
    }
    Ok(())
}
