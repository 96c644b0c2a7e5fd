//! Groups: an id, a name, and the numbers in them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::journal::Batch;

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The part before `@g.us`.
    pub(crate) id: String,
    pub(crate) subject: String,
    pub(crate) creator: String,
    /// Unix seconds.
    pub(crate) created: i64,
    /// Phone numbers.
    pub(crate) members: Vec<String>,
}

impl Group {
    pub(crate) fn keep(&self, batch: &mut Batch) {
        batch.put_json(&format!("group/{}", self.id), self);
    }
}

#[derive(Default)]
pub(crate) struct Groups {
    by_id: RwLock<HashMap<String, Arc<Mutex<Group>>>>,
}

impl Groups {
    pub(crate) fn restore(&self, value: &[u8]) -> Result<()> {
        let group: Group = serde_json::from_slice(value)?;
        let mut groups = self.by_id.write().expect("no panic here");
        groups.insert(group.id.clone(), Arc::new(Mutex::new(group)));
        Ok(())
    }

    pub(crate) fn find(&self, id: &str) -> Option<Group> {
        let groups = self.by_id.read().expect("no panic here");
        let group = groups.get(id)?.lock().expect("no panic here").clone();
        Some(group)
    }

    /// Every group that the number is in.
    pub(crate) fn of(&self, phone: &str) -> Vec<Group> {
        let groups = self.by_id.read().expect("no panic here");
        let groups = groups
            .values()
            .map(|group| group.lock().expect("no panic here").clone());
        groups
            .filter(|group| group.members.iter().any(|member| member == phone))
            .collect()
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
        let mut groups = self.by_id.write().expect("no panic here");
        let known = groups
            .values()
            .find(|group| {
                let group = group.lock().expect("no panic here");
                group.id == name || group.subject == name
            })
            .cloned();
        let group = known.unwrap_or_else(|| {
            let group = Arc::new(Mutex::new(new_group(name, members, now)));
            let id = group.lock().expect("no panic here").id.clone();
            groups.insert(id, group.clone());
            group
        });
        let mut group = group.lock().expect("no panic here");
        for member in members {
            if !group.members.iter().any(|known| known == member) {
                group.members.push((*member).to_owned());
            }
        }
        // One write a call, whether or not someone joined: calls are rare.
        group.keep(batch);
        group.id.clone()
    }

    /// A new group, whatever others are called.
    pub(crate) fn create(
        &self,
        subject: &str,
        members: &[&str],
        now: i64,
        batch: &mut Batch,
    ) -> Group {
        let group = new_group(subject, members, now);
        group.keep(batch);
        let mut groups = self.by_id.write().expect("no panic here");
        groups.insert(group.id.clone(), Arc::new(Mutex::new(group.clone())));
        group
    }
}

fn new_group(subject: &str, members: &[&str], now: i64) -> Group {
    let looks_like_an_id = subject.len() >= 10 && subject.bytes().all(|b| b.is_ascii_digit());
    let id = match looks_like_an_id {
        true => subject.to_owned(),
        false => format!("1203634{:011}", rand::random_range(0..100_000_000_000_u64)),
    };
    Group {
        id,
        subject: subject.to_owned(),
        creator: members.first().copied().unwrap_or_default().to_owned(),
        created: now,
        members: members.iter().map(|member| (*member).to_owned()).collect(),
    }
}
