//! Groups: who is in them, who may change them, and what they are set to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, RwLock};

use anyhow::Result;
use serde::{Deserialize, Serialize};

mod change;
mod making;
mod notice;

pub(crate) use change::{Change, Forbidden, Outcome, Setting, change};
pub(crate) use making::{create, link, unlink};
pub(crate) use notice::describe;

use crate::journal::{Batch, Journal, Position};

#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The part before `@g.us`.
    pub(crate) id: String,
    pub(crate) subject: String,
    pub(crate) creator: String,
    /// Unix seconds.
    pub(crate) created: i64,
    /// Phone numbers.
    pub(crate) members: Vec<String>,
    /// Beside the creator, who always is one.
    #[serde(default)]
    pub(crate) admins: BTreeSet<String>,
    #[serde(default)]
    pub(crate) subject_set: Option<Authored>,
    #[serde(default)]
    pub(crate) description: Option<Description>,
    /// Tags of [`Setting`]s that are on.
    #[serde(default)]
    pub(crate) settings: BTreeSet<String>,
    /// `member_add_mode` and the like.
    #[serde(default)]
    pub(crate) modes: BTreeMap<String, String>,
    /// Seconds after which messages disappear; 0 is never.
    #[serde(default)]
    pub(crate) ephemeral: u32,
    /// Whoever joins by a link must be approved.
    #[serde(default)]
    pub(crate) approval: bool,
    /// Members are named by LID, not by number.
    #[serde(default)]
    pub(crate) by_lid: bool,
    /// It is a community.
    #[serde(default)]
    pub(crate) parent: bool,
    /// The community that it belongs to.
    #[serde(default)]
    pub(crate) linked_parent: Option<String>,
    #[serde(default)]
    pub(crate) invite_code: Option<String>,
}

/// Who did something, and when (unix seconds).
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Authored {
    pub(crate) by: String,
    pub(crate) at: i64,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) set: Authored,
}

impl Group {
    /// A name that looks like an id is one.
    fn new(subject: &str, members: &[&str], now: i64) -> Self {
        let looks_like_an_id = subject.len() >= 10 && subject.bytes().all(|b| b.is_ascii_digit());
        let id = match looks_like_an_id {
            true => subject.to_owned(),
            false => format!("1203634{:011}", rand::random_range(0..100_000_000_000_u64)),
        };
        Self {
            id,
            subject: subject.to_owned(),
            creator: members.first().copied().unwrap_or_default().to_owned(),
            created: now,
            members: members.iter().map(|member| (*member).to_owned()).collect(),
            ..Self::default()
        }
    }

    fn keep(&self, batch: &mut Batch) {
        batch.put_json(&format!("group/{}", self.id), self);
    }

    pub(crate) fn has(&self, phone: &str) -> bool {
        self.members.iter().any(|member| member == phone)
    }

    pub(crate) fn is_admin(&self, phone: &str) -> bool {
        self.has(phone) && (self.creator == phone || self.admins.contains(phone))
    }
}

#[derive(Default)]
pub(crate) struct Groups {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    by_id: HashMap<String, Arc<Group>>,
    by_subject: HashMap<String, String>,
    by_member: HashMap<String, BTreeSet<String>>,
    by_code: HashMap<String, String>,
}

impl Inner {
    fn insert(&mut self, group: Group) -> Arc<Group> {
        if let Some(before) = self.by_id.remove(&group.id) {
            self.forget(&before);
        }
        for member in &group.members {
            let of = self.by_member.entry(member.clone()).or_default();
            of.insert(group.id.clone());
        }
        // Of two with one name, the older is meant by it.
        let named = self.by_subject.entry(group.subject.clone());
        named.or_insert_with(|| group.id.clone());
        if let Some(code) = &group.invite_code {
            self.by_code.insert(code.clone(), group.id.clone());
        }
        let group = Arc::new(group);
        self.by_id.insert(group.id.clone(), group.clone());
        group
    }

    fn forget(&mut self, group: &Group) {
        for member in &group.members {
            if let Some(of) = self.by_member.get_mut(member) {
                of.remove(&group.id);
            }
        }
        if let Some(code) = &group.invite_code {
            self.by_code.remove(code);
        }
        if self.by_subject.get(&group.subject) == Some(&group.id) {
            self.by_subject.remove(&group.subject);
        }
    }
}

impl Groups {
    pub(crate) fn restore(&self, value: &[u8]) -> Result<()> {
        let group: Group = serde_json::from_slice(value)?;
        self.inner.write().expect("no panic here").insert(group);
        Ok(())
    }

    pub(crate) fn find(&self, id: &str) -> Option<Arc<Group>> {
        let inner = self.inner.read().expect("no panic here");
        inner.by_id.get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Group>> {
        let inner = self.inner.read().expect("no panic here");
        inner.by_id.values().cloned().collect()
    }

    /// Every group that the number is in.
    pub(crate) fn of(&self, phone: &str) -> Vec<Arc<Group>> {
        let inner = self.inner.read().expect("no panic here");
        let ids = inner.by_member.get(phone).into_iter().flatten();
        ids.filter_map(|id| inner.by_id.get(id).cloned()).collect()
    }

    /// The group of that name or id with these members in it, made when there is none yet.
    pub(crate) fn ensure(
        &self,
        name: &str,
        members: &[&str],
        now: i64,
        batch: &mut Batch,
    ) -> String {
        let name = name.strip_suffix("@g.us").unwrap_or(name);
        let mut inner = self.inner.write().expect("no panic here");
        let known = match inner.by_id.contains_key(name) {
            true => Some(name),
            false => inner.by_subject.get(name).map(String::as_str),
        };
        let known = known.and_then(|id| inner.by_id.get(id));
        let mut group = match known {
            Some(group) => Group::clone(group),
            None => Group::new(name, members, now),
        };
        for member in members {
            if !group.has(member) {
                group.members.push((*member).to_owned());
            }
        }
        // One write a call, whether or not someone joined: calls are rare.
        group.keep(batch);
        inner.insert(group).id.clone()
    }

    /// The group to which that link leads.
    pub(crate) fn invited(&self, code: &str) -> Option<Arc<Group>> {
        let inner = self.inner.read().expect("no panic here");
        inner
            .by_code
            .get(code)
            .and_then(|id| inner.by_id.get(id))
            .cloned()
    }

    fn add(&self, group: Group, journal: &Journal) -> (Arc<Group>, Position) {
        let mut batch = Batch::default();
        group.keep(&mut batch);
        let mut inner = self.inner.write().expect("no panic here");
        let group = inner.insert(group);
        (group, journal.commit(batch))
    }

    /// Changes a group. It is committed under the lock: the journal's last word on a group must
    /// be the one that stands here.
    fn edit<T>(
        &self,
        id: &str,
        journal: &Journal,
        edit: impl FnOnce(&mut Group) -> T,
    ) -> Option<(T, Arc<Group>, Position)> {
        let mut inner = self.inner.write().expect("no panic here");
        let mut group = Group::clone(inner.by_id.get(id)?);
        let result = edit(&mut group);
        let mut batch = Batch::default();
        group.keep(&mut batch);
        let group = inner.insert(group);
        Some((result, group, journal.commit(batch)))
    }

    fn remove(&self, id: &str, journal: &Journal) -> Position {
        let mut inner = self.inner.write().expect("no panic here");
        let Some(group) = inner.by_id.remove(id) else {
            return 0;
        };
        inner.forget(&group);
        let mut batch = Batch::default();
        batch.delete(&format!("group/{id}"));
        journal.commit(batch)
    }
}
