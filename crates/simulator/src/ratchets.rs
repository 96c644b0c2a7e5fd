//! libsignal's stores, in memory. They never wait, so every protocol call finishes at once.
//!
//! Records waive libsignal's counter lease: the journal has them before the wire does.

use std::collections::HashMap;
use std::future::Future;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use wacore_libsignal::protocol::error::Result;
use wacore_libsignal::protocol::{
    Direction, IdentityChange, IdentityKey, IdentityKeyPair, IdentityKeyStore, KeyPair, PreKeyId,
    PreKeyRecord, PreKeyStore, ProtocolAddress, SenderKeyName, SenderKeyRecord, SenderKeyStore,
    SessionRecord, SessionStore, SignalProtocolError, SignedPreKeyId, SignedPreKeyRecord,
    SignedPreKeyStore,
};

/// The result of a protocol call over these stores.
pub(crate) fn now<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never()
        .expect("stores in memory never have to wait")
}

#[derive(Default)]
pub(crate) struct Sessions(pub(crate) HashMap<ProtocolAddress, SessionRecord>);

#[async_trait]
impl SessionStore for Sessions {
    async fn load_session(&self, address: &ProtocolAddress) -> Result<Option<SessionRecord>> {
        Ok(self.0.get(address).cloned())
    }

    async fn has_session(&self, address: &ProtocolAddress) -> Result<bool> {
        Ok(self.0.contains_key(address))
    }

    async fn store_session(
        &mut self,
        address: &ProtocolAddress,
        mut record: SessionRecord,
    ) -> Result<()> {
        record.waive_counter_lease();
        self.0.insert(address.clone(), record);
        Ok(())
    }
}

/// A simulated phone trusts whoever the server names: it has no one to compare numbers with.
pub(crate) struct Own {
    pub(crate) identity: IdentityKeyPair,
    pub(crate) registration_id: u32,
}

#[async_trait]
impl IdentityKeyStore for Own {
    async fn get_identity_key_pair(&self) -> Result<IdentityKeyPair> {
        Ok(self.identity.clone())
    }

    async fn get_local_registration_id(&self) -> Result<u32> {
        Ok(self.registration_id)
    }

    async fn save_identity(
        &mut self,
        _address: &ProtocolAddress,
        _identity: &IdentityKey,
    ) -> Result<IdentityChange> {
        Ok(IdentityChange::NewOrUnchanged)
    }

    async fn is_trusted_identity(
        &self,
        _address: &ProtocolAddress,
        _identity: &IdentityKey,
        _direction: Direction,
    ) -> Result<bool> {
        Ok(true)
    }

    async fn get_identity(&self, _address: &ProtocolAddress) -> Result<Option<IdentityKey>> {
        Ok(None)
    }
}

#[derive(Default)]
pub(crate) struct PreKeys(pub(crate) HashMap<u32, KeyPair>);

#[async_trait]
impl PreKeyStore for PreKeys {
    async fn get_pre_key(&self, id: PreKeyId) -> Result<PreKeyRecord> {
        match self.0.get(&id.into()) {
            Some(pair) => Ok(PreKeyRecord::new(id, pair)),
            None => Err(SignalProtocolError::InvalidPreKeyId),
        }
    }

    async fn save_pre_key(&mut self, id: PreKeyId, record: &PreKeyRecord) -> Result<()> {
        self.0.insert(id.into(), record.key_pair()?);
        Ok(())
    }

    async fn remove_pre_key(&mut self, id: PreKeyId) -> Result<()> {
        self.0.remove(&id.into());
        Ok(())
    }
}

/// A simulated phone never rotates its signed prekey.
pub(crate) struct SignedPreKeys(pub(crate) SignedPreKeyRecord);

#[async_trait]
impl SignedPreKeyStore for SignedPreKeys {
    async fn get_signed_pre_key(&self, _id: SignedPreKeyId) -> Result<SignedPreKeyRecord> {
        Ok(self.0.clone())
    }

    async fn save_signed_pre_key(
        &mut self,
        _id: SignedPreKeyId,
        record: &SignedPreKeyRecord,
    ) -> Result<()> {
        self.0 = record.clone();
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct SenderKeys(pub(crate) HashMap<SenderKeyName, SenderKeyRecord>);

#[async_trait]
impl SenderKeyStore for SenderKeys {
    async fn store_sender_key(
        &mut self,
        name: &SenderKeyName,
        mut record: SenderKeyRecord,
    ) -> Result<()> {
        record.waive_counter_lease()?;
        self.0.insert(name.clone(), record);
        Ok(())
    }

    async fn load_sender_key(&self, name: &SenderKeyName) -> Result<Option<SenderKeyRecord>> {
        Ok(self.0.get(name).cloned())
    }
}
