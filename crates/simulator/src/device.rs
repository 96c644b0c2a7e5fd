//! A linked device: the keys it published, what it hasn't acknowledged, and its connection.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use wacore_libsignal::protocol::{IdentityKey, PreKeyBundle, PublicKey};

use crate::base64_bytes;
use crate::connection::Outlet;
use crate::journal::Batch;
use crate::offline::{Phase, Queue};

/// What a device said about itself when it was linked, and what it published since.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Profile {
    #[serde(with = "base64_bytes")]
    pub(crate) noise_key: [u8; 32],
    #[serde(with = "base64_bytes")]
    pub(crate) identity: [u8; 32],
    pub(crate) registration_id: u32,
    pub(crate) signed_prekey: SignedPreKey,
    /// ADVSignedDeviceIdentity with both signatures.
    #[serde(with = "base64_bytes")]
    pub(crate) device_identity: Vec<u8>,
    /// Unix seconds.
    pub(crate) linked_at: i64,
    /// Whether the phone has shared its app state key with it.
    pub(crate) key_shared: bool,
    /// Its account's chats are named by LID.
    #[serde(default)]
    pub(crate) by_lid: bool,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SignedPreKey {
    pub(crate) id: u32,
    #[serde(with = "base64_bytes")]
    pub(crate) public: [u8; 32],
    #[serde(with = "base64_bytes")]
    pub(crate) signature: Vec<u8>,
}

#[derive(Clone)]
pub(crate) struct OneTimePreKey {
    pub(crate) id: u32,
    pub(crate) public: [u8; 32],
}

pub(crate) struct Device {
    pub(crate) id: u16,
    pub(crate) phone: String,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) profile: Profile,
    prekeys: VecDeque<OneTimePreKey>,
    /// How many prekeys were handed out since the last upload.
    handed_out: usize,
    pub(crate) queue: Queue,
    pub(crate) phase: Phase,
    pub(crate) outlet: Option<Outlet>,
}

impl Device {
    pub(crate) fn new(phone: &str, id: u16, profile: Profile) -> Self {
        let state = State {
            profile,
            prekeys: VecDeque::new(),
            handed_out: 0,
            queue: Queue::default(),
            phase: Phase::Passive,
            outlet: None,
        };
        Self {
            id,
            phone: phone.to_owned(),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while holding a device")
    }

    /// `phone.id`, as in the keys of the journal.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.phone, self.id)
    }

    pub(crate) fn keep(&self, state: &State, batch: &mut Batch) {
        batch.put_json(&format!("device/{}", self.name()), &state.profile);
    }

    /// Forgets everything about it.
    pub(crate) fn erase(&self, state: &State, batch: &mut Batch) {
        batch.delete(&format!("device/{}", self.name()));
        batch.delete(&self.prekeys_key());
        batch.delete(&self.handed_out_key());
        state.queue.erase(&self.name(), batch);
    }

    /// Adds uploaded prekeys; one with a known id replaces it.
    pub(crate) fn add_prekeys(
        &self,
        state: &mut State,
        keys: Vec<OneTimePreKey>,
        batch: &mut Batch,
    ) {
        let fresh: std::collections::HashSet<u32> = keys.iter().map(|key| key.id).collect();
        state.prekeys.retain(|key| !fresh.contains(&key.id));
        state.prekeys.extend(keys);
        state.handed_out = 0;
        let mut bytes = Vec::with_capacity(state.prekeys.len() * 36);
        for key in &state.prekeys {
            bytes.extend_from_slice(&key.id.to_be_bytes());
            bytes.extend_from_slice(&key.public);
        }
        batch.put(&self.prekeys_key(), &bytes);
        batch.delete(&self.handed_out_key());
    }

    /// Takes the oldest one-time prekey, for good.
    pub(crate) fn take_prekey(
        &self,
        state: &mut State,
        batch: &mut Batch,
    ) -> Option<OneTimePreKey> {
        let key = state.prekeys.pop_front()?;
        state.handed_out += 1;
        let count = u64::try_from(state.handed_out).expect("fewer than 2^64");
        batch.put(&self.handed_out_key(), &count.to_be_bytes());
        Some(key)
    }

    pub(crate) fn restore_prekeys(&self, bytes: &[u8], handed_out: Option<&[u8]>) -> Result<()> {
        ensure!(bytes.len().is_multiple_of(36), "prekeys of a wrong length");
        let handed_out = match handed_out {
            Some(count) => usize::try_from(u64::from_be_bytes(count.try_into()?))?,
            None => 0,
        };
        let keys = bytes.chunks_exact(36).skip(handed_out);
        let mut state = self.lock();
        state.handed_out = handed_out;
        state.prekeys = keys
            .map(|chunk| OneTimePreKey {
                id: u32::from_be_bytes(chunk[..4].try_into().expect("four bytes")),
                public: chunk[4..].try_into().expect("32 bytes"),
            })
            .collect();
        Ok(())
    }

    pub(crate) fn prekeys_key(&self) -> String {
        format!("prekeys/{}", self.name())
    }

    pub(crate) fn handed_out_key(&self) -> String {
        format!("handedout/{}", self.name())
    }
}

impl State {
    pub(crate) fn prekeys(&self) -> impl ExactSizeIterator<Item = &OneTimePreKey> {
        self.prekeys.iter()
    }

    /// The keys that a sender needs to start a session with this device.
    pub(crate) fn bundle(
        &self,
        device: u16,
        prekey: Option<&OneTimePreKey>,
    ) -> Result<PreKeyBundle> {
        let prekey = match prekey {
            Some(key) => Some((key.id.into(), public_key(&key.public)?)),
            None => None,
        };
        let signed = &self.profile.signed_prekey;
        PreKeyBundle::new(
            self.profile.registration_id,
            u32::from(device).into(),
            prekey,
            signed.id.into(),
            public_key(&signed.public)?,
            signed.signature.clone(),
            IdentityKey::new(public_key(&self.profile.identity)?),
        )
        .context("the device's keys make no bundle")
    }
}

pub(crate) fn public_key(bytes: &[u8]) -> Result<PublicKey> {
    Ok(PublicKey::from_djb_public_key_bytes(bytes)?)
}
