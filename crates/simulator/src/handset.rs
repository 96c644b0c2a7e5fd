//! A simulated phone (device 0 of its number): its keys, and a ratchet towards every device and
//! group it talks to. Every change goes into the caller's batch.

use std::collections::HashSet;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use wacore_libsignal::protocol::{
    CiphertextMessage, GenericSignedPreKey as _, IdentityKeyPair, KeyPair, PreKeyBundle,
    PreKeySignalMessage, PrivateKey, ProtocolAddress, PublicKey, SenderKeyDistributionMessage,
    SenderKeyName, SenderKeyRecord, SessionRecord, SignalMessage, SignedPreKeyRecord, Timestamp,
    UsePQRatchet, create_sender_key_distribution_message, group_decrypt, group_encrypt,
    message_decrypt_prekey, message_decrypt_signal, message_encrypt, process_prekey_bundle,
    process_sender_key_distribution_message,
};

use crate::base64_bytes;
use crate::journal::Batch;
use crate::ratchets::{Own, PreKeys, SenderKeys, Sessions, SignedPreKeys, now};

const SIGNED_PREKEY_ID: u32 = 1;

/// The keys that a phone is made with.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct HandsetKeys {
    #[serde(with = "base64_bytes")]
    identity: [u8; 32],
    #[serde(with = "base64_bytes")]
    signed_prekey: [u8; 32],
    #[serde(with = "base64_bytes")]
    signed_prekey_signature: Vec<u8>,
    pub(crate) registration_id: u32,
    /// Shared with linked devices so that they can read the app state.
    #[serde(with = "base64_bytes")]
    pub(crate) app_state_key_id: [u8; 6],
    #[serde(with = "base64_bytes")]
    pub(crate) app_state_key: [u8; 32],
}

impl HandsetKeys {
    pub(crate) fn generate() -> Result<Self> {
        let mut random = rand::rng();
        let identity = KeyPair::generate(&mut random);
        let signed = KeyPair::generate(&mut random);
        let signature =
            identity.calculate_signature(&signed.public_key.serialize(), &mut random)?;
        Ok(Self {
            identity: *identity.private_key.serialize(),
            signed_prekey: *signed.private_key.serialize(),
            signed_prekey_signature: signature.to_vec(),
            registration_id: rand::random_range(1..0x3fff),
            app_state_key_id: rand::random(),
            app_state_key: rand::random(),
        })
    }

    pub(crate) fn identity(&self) -> Result<KeyPair> {
        pair(&self.identity)
    }

    /// Id, public key and signature, as the server hands them out.
    pub(crate) fn signed_prekey(&self) -> Result<(u32, PublicKey, &[u8])> {
        let key = pair(&self.signed_prekey)?.public_key;
        Ok((SIGNED_PREKEY_ID, key, &self.signed_prekey_signature))
    }
}

fn pair(private: &[u8]) -> Result<KeyPair> {
    let private = PrivateKey::deserialize(private)?;
    Ok(KeyPair::new(private.public_key()?, private))
}

/// An `<enc>`: `pkmsg`, `msg` or `skmsg`, and its bytes.
pub(crate) struct Sealed {
    pub(crate) kind: &'static str,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Handset {
    phone: String,
    own: Own,
    signed_prekeys: SignedPreKeys,
    prekeys: PreKeys,
    next_prekey: u32,
    sessions: Sessions,
    sender_keys: SenderKeys,
    /// Who has which of this phone's sender keys: group and device.
    distributed: HashSet<(String, String)>,
}

impl Handset {
    pub(crate) fn new(phone: &str, keys: &HandsetKeys) -> Result<Self> {
        let identity = keys.identity()?;
        let signed = SignedPreKeyRecord::new(
            SIGNED_PREKEY_ID.into(),
            Timestamp::from_epoch_millis(0),
            &pair(&keys.signed_prekey)?,
            &keys.signed_prekey_signature,
        );
        Ok(Self {
            phone: phone.to_owned(),
            own: Own {
                identity: IdentityKeyPair::new(identity.public_key.into(), identity.private_key),
                registration_id: keys.registration_id,
            },
            signed_prekeys: SignedPreKeys(signed),
            prekeys: PreKeys::default(),
            next_prekey: 1,
            sessions: Sessions::default(),
            sender_keys: SenderKeys::default(),
            distributed: HashSet::new(),
        })
    }

    pub(crate) fn has_session(&self, with: &ProtocolAddress) -> bool {
        self.sessions.0.contains_key(with)
    }

    /// Starts a new session; the next message to that device is a `pkmsg`.
    pub(crate) fn start_session(
        &mut self,
        with: &ProtocolAddress,
        bundle: &PreKeyBundle,
    ) -> Result<()> {
        now(process_prekey_bundle(
            with,
            &mut self.sessions,
            &mut self.own,
            bundle,
            &mut rand::rng(),
            UsePQRatchet::No,
        ))?;
        Ok(())
    }

    pub(crate) fn encrypt(
        &mut self,
        to: &ProtocolAddress,
        padded: &[u8],
        batch: &mut Batch,
    ) -> Result<Sealed> {
        let message = now(message_encrypt(
            padded,
            to,
            &mut self.sessions,
            &mut self.own,
        ))?;
        self.keep_session(to, batch)?;
        let kind = match &message {
            CiphertextMessage::PreKeySignalMessage(_) => "pkmsg",
            _ => "msg",
        };
        Ok(Sealed {
            kind,
            bytes: message.serialize().to_vec(),
        })
    }

    /// Decrypts a `pkmsg` or `msg` and takes the padding off.
    pub(crate) fn decrypt(
        &mut self,
        from: &ProtocolAddress,
        kind: &str,
        bytes: &[u8],
        batch: &mut Batch,
    ) -> Result<Vec<u8>> {
        let mut random = rand::rng();
        let opened = match kind {
            "pkmsg" => now(message_decrypt_prekey(
                &PreKeySignalMessage::try_from(bytes)?,
                from,
                &mut self.sessions,
                &mut self.own,
                &mut self.prekeys,
                &self.signed_prekeys,
                &mut random,
                UsePQRatchet::No,
            ))?,
            "msg" => now(message_decrypt_signal(
                &SignalMessage::try_from(bytes)?,
                from,
                &mut self.sessions,
                &mut self.own,
                &mut random,
            ))?,
            other => bail!("an <enc> of type {other} is not for one device"),
        };
        if let Some(id) = opened.consumed_prekey_id {
            let id = u32::from(id);
            self.prekeys.0.remove(&id);
            batch.delete(&self.prekey_key(id));
        }
        self.keep_session(from, batch)?;
        unpad(opened.plaintext)
    }

    /// A one-time prekey for someone who wants to write to this phone.
    pub(crate) fn issue_prekey(&mut self, batch: &mut Batch) -> (u32, PublicKey) {
        let id = self.next_prekey;
        self.next_prekey += 1;
        let pair = KeyPair::generate(&mut rand::rng());
        batch.put(&self.prekey_key(id), pair.private_key.serialize());
        let public = pair.public_key;
        self.prekeys.0.insert(id, pair);
        (id, public)
    }

    /// This phone's sender key for a group, made at first use, as others need it.
    pub(crate) fn distribution(&mut self, group: &str, batch: &mut Batch) -> Result<Vec<u8>> {
        let name = SenderKeyName::from_parts(group, &self.phone);
        let message = now(create_sender_key_distribution_message(
            &name,
            &mut self.sender_keys,
            &mut rand::rng(),
        ))?;
        self.keep_sender_key(&name, batch)?;
        Ok(message.serialized().to_vec())
    }

    pub(crate) fn has_distributed(&self, group: &str, to: &ProtocolAddress) -> bool {
        let entry = (group.to_owned(), to.as_str().to_owned());
        self.distributed.contains(&entry)
    }

    pub(crate) fn distributed(&mut self, group: &str, to: &ProtocolAddress, batch: &mut Batch) {
        batch.put(
            &format!("distributed/{}/{group}/{}", self.phone, to.as_str()),
            b"",
        );
        self.distributed
            .insert((group.to_owned(), to.as_str().to_owned()));
    }

    pub(crate) fn group_encrypt(
        &mut self,
        group: &str,
        padded: &[u8],
        batch: &mut Batch,
    ) -> Result<Sealed> {
        let name = SenderKeyName::from_parts(group, &self.phone);
        let message = now(group_encrypt(
            &mut self.sender_keys,
            &name,
            padded,
            &mut rand::rng(),
        ))?;
        self.keep_sender_key(&name, batch)?;
        Ok(Sealed {
            kind: "skmsg",
            bytes: message.serialized().to_vec(),
        })
    }

    /// Learns another device's sender key for a group.
    pub(crate) fn learn_sender_key(
        &mut self,
        group: &str,
        from: &ProtocolAddress,
        distribution: &[u8],
        batch: &mut Batch,
    ) -> Result<()> {
        let name = SenderKeyName::from_parts(group, from.as_str());
        let message = SenderKeyDistributionMessage::try_from(distribution)?;
        now(process_sender_key_distribution_message(
            &name,
            &message,
            &mut self.sender_keys,
        ))?;
        self.keep_sender_key(&name, batch)
    }

    /// Decrypts an `skmsg` and takes the padding off.
    pub(crate) fn group_decrypt(
        &mut self,
        group: &str,
        from: &ProtocolAddress,
        bytes: &[u8],
        batch: &mut Batch,
    ) -> Result<Vec<u8>> {
        let name = SenderKeyName::from_parts(group, from.as_str());
        let opened = now(group_decrypt(bytes, &mut self.sender_keys, &name))?;
        self.keep_sender_key(&name, batch)?;
        unpad(opened)
    }

    fn keep_session(&self, with: &ProtocolAddress, batch: &mut Batch) -> Result<()> {
        let record = self.sessions.0.get(with).context("the session is gone")?;
        let key = format!("session/{}/{}", self.phone, with.as_str());
        batch.put(&key, &record.serialize()?);
        Ok(())
    }

    fn keep_sender_key(&self, name: &SenderKeyName, batch: &mut Batch) -> Result<()> {
        let record = self.sender_keys.0.get(name).context("no sender key")?;
        let key = format!(
            "senderkey/{}/{}/{}",
            self.phone,
            name.group_id(),
            name.sender_id()
        );
        batch.put(&key, &record.serialize()?);
        Ok(())
    }

    fn prekey_key(&self, id: u32) -> String {
        format!("onetime/{}/{id}", self.phone)
    }

    /// Takes back one entry of the journal; `rest` is the key after kind and phone.
    pub(crate) fn restore(&mut self, kind: &str, rest: &str, value: &[u8]) -> Result<()> {
        match kind {
            "session" => {
                let mut record = SessionRecord::deserialize(value)?;
                record.waive_counter_lease();
                self.sessions.0.insert(address(rest)?, record);
            }
            "senderkey" => {
                let (group, sender) = rest.split_once('/').context("no sender in the key")?;
                let mut record = SenderKeyRecord::deserialize(value)?;
                record.waive_counter_lease()?;
                let name = SenderKeyName::from_parts(group, sender);
                self.sender_keys.0.insert(name, record);
            }
            "distributed" => {
                let (group, to) = rest.split_once('/').context("no device in the key")?;
                self.distributed.insert((group.to_owned(), to.to_owned()));
            }
            "onetime" => {
                let id = rest.parse()?;
                self.next_prekey = self.next_prekey.max(id + 1);
                self.prekeys.0.insert(id, pair(value)?);
            }
            other => bail!("a phone has no {other}"),
        }
        Ok(())
    }
}

/// `5511999999999.7` as an address.
fn address(text: &str) -> Result<ProtocolAddress> {
    let (phone, device) = text.rsplit_once('.').context("no device in the address")?;
    Ok(ProtocolAddress::new(phone, device.parse::<u32>()?.into()))
}

fn unpad(mut padded: Vec<u8>) -> Result<Vec<u8>> {
    let padding = usize::from(*padded.last().context("an empty message")?);
    let length = padded
        .len()
        .checked_sub(padding)
        .context("more padding than message")?;
    padded.truncate(length);
    Ok(padded)
}
