//! A number: its simulated phone and the devices linked to it. A contact is a number to which
//! nothing is linked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use wacore_binary::Jid;
use wacore_libsignal::protocol::ProtocolAddress;

use crate::device::Device;
use crate::handset::{Handset, HandsetKeys};
use crate::journal::Batch;

/// What the journal keeps of a number itself.
#[derive(Serialize, Deserialize)]
struct Record {
    phone: String,
    lid: String,
    created: i64,
    keys: HandsetKeys,
    #[serde(flatten)]
    standing: Standing,
}

/// What changes about a number.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// The name that others see.
    pub(crate) name: String,
    /// Set when clients that register under this push name belong to this number.
    pub(crate) registered_as: Option<String>,
    pub(crate) next_device: u16,
    pub(crate) banned: bool,
}

pub(crate) struct Account {
    pub(crate) phone: String,
    pub(crate) lid: String,
    /// Unix seconds.
    pub(crate) created: i64,
    pub(crate) keys: HandsetKeys,
    standing: Mutex<Standing>,
    devices: RwLock<BTreeMap<u16, Arc<Device>>>,
    handset: Mutex<Handset>,
}

impl Account {
    pub(crate) fn create(phone: &str, lid: String, created: i64) -> Result<Self> {
        let standing = Standing {
            name: format!("Contact {}", &phone[phone.len().saturating_sub(4)..]),
            registered_as: None,
            next_device: 1,
            banned: false,
        };
        let record = Record {
            phone: phone.to_owned(),
            lid,
            created,
            keys: HandsetKeys::generate()?,
            standing,
        };
        Self::from_record(record)
    }

    pub(crate) fn restore(value: &[u8]) -> Result<Self> {
        Self::from_record(serde_json::from_slice(value)?)
    }

    fn from_record(record: Record) -> Result<Self> {
        let handset = Handset::new(&record.phone, &record.keys)?;
        Ok(Self {
            phone: record.phone,
            lid: record.lid,
            created: record.created,
            keys: record.keys,
            standing: Mutex::new(record.standing),
            devices: RwLock::default(),
            handset: Mutex::new(handset),
        })
    }

    pub(crate) fn keep(&self, batch: &mut Batch) {
        let record = Record {
            phone: self.phone.clone(),
            lid: self.lid.clone(),
            created: self.created,
            keys: self.keys.clone(),
            standing: self.standing(),
        };
        batch.put_json(&format!("account/{}", self.phone), &record);
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing.lock().expect("no panic here").clone()
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Standing) -> T) -> T {
        change(&mut self.standing.lock().expect("no panic here"))
    }

    /// The phone itself. Locked before any device, never two phones at once.
    pub(crate) fn handset(&self) -> MutexGuard<'_, Handset> {
        self.handset.lock().expect("no panic while encrypting")
    }

    pub(crate) fn devices(&self) -> Vec<Arc<Device>> {
        let devices = self.devices.read().expect("no panic here");
        devices.values().cloned().collect()
    }

    pub(crate) fn device(&self, id: u16) -> Option<Arc<Device>> {
        let devices = self.devices.read().expect("no panic here");
        devices.get(&id).cloned()
    }

    pub(crate) fn add_device(&self, device: Arc<Device>) {
        let mut devices = self.devices.write().expect("no panic here");
        devices.insert(device.id, device);
    }

    pub(crate) fn remove_device(&self, id: u16) -> Option<Arc<Device>> {
        self.devices.write().expect("no panic here").remove(&id)
    }

    pub(crate) fn jid(&self) -> Jid {
        Jid::pn(self.phone.as_str())
    }

    pub(crate) fn lid_jid(&self) -> Jid {
        Jid::lid(self.lid.as_str())
    }

    /// A device of this number, as others' ratchets know it.
    pub(crate) fn address(&self, device: u16) -> ProtocolAddress {
        ProtocolAddress::new(&self.phone, u32::from(device).into())
    }
}
