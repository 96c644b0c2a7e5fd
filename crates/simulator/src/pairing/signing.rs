//! Account and device sign each other: then the device is one of the account's.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::oneshot;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, NodeRef};
use waproto::buffa::Message as _;
use waproto::whatsapp::{
    ADVDeviceIdentity, ADVEncryptionType, ADVSignedDeviceIdentity, ADVSignedDeviceIdentityHMAC,
    ClientPairingProps,
};

use super::{Paired, Registration, SIGNING};
use crate::account::Account;
use crate::device::{Device, Profile, public_key};
use crate::device_list;
use crate::journal::Batch;
use crate::stanza::{SERVER, leaf, message_id, stream_error, text};
use crate::world::{World, unix_time};

const ACCOUNT_SIGNATURE: [u8; 2] = [6, 0];
const DEVICE_SIGNATURE: [u8; 2] = [6, 1];

/// A scan that waits for the client's signature.
pub(super) struct Signing {
    pub(super) iq: String,
    pub(super) account: Arc<Account>,
    device: u16,
    identity: ADVSignedDeviceIdentity,
    by_lid: bool,
    pub(super) done: oneshot::Sender<Result<()>>,
}

impl Registration {
    /// The client has signed: it becomes a device, and is told to connect again as one.
    pub(super) fn link(
        &self,
        world: &World,
        signing: &Signing,
        answer: &NodeRef<'_>,
    ) -> Result<()> {
        if let Some(error) = answer.get_optional_child("error") {
            let code = text(error, "code").unwrap_or_default();
            let why = text(error, "text").unwrap_or_default();
            bail!("the client refused the pairing: {code} {why}");
        }
        let signed = answer
            .get_optional_child("pair-device-sign")
            .and_then(|sign| sign.get_optional_child("device-identity"))
            .and_then(|identity| identity.content_bytes())
            .context("the client's answer has no device identity")?;
        let mut identity = ADVSignedDeviceIdentity::decode_from_slice(signed)?;
        let signature = identity.device_signature.clone();
        let signature = signature.context("the device did not sign")?;
        let details = signing.identity.details.clone().unwrap_or_default();
        let account_key = signing.account.keys.identity()?.public_key;
        let mut subject = DEVICE_SIGNATURE.to_vec();
        subject.extend_from_slice(&details);
        subject.extend_from_slice(&self.identity);
        subject.extend_from_slice(account_key.public_key_bytes());
        ensure!(
            public_key(&self.identity)?.verify_signature(&subject, &signature),
            "the device's signature is wrong"
        );
        identity.account_signature_key = Some(account_key.public_key_bytes().to_vec());
        let device = Device::new(
            &signing.account.phone,
            signing.device,
            Profile {
                noise_key: self.noise_key,
                identity: self.identity,
                registration_id: self.registration_id,
                signed_prekey: self.signed_prekey.clone(),
                device_identity: identity.encode_to_vec(),
                linked_at: unix_time(),
                key_shared: false,
                by_lid: signing.by_lid,
            },
        );
        let mut batch = Batch::default();
        device.keep(&device.lock(), &mut batch);
        signing.account.add_device(Arc::new(device));
        let position = world.journal.commit(batch);
        device_list::announce(&signing.account)?;
        self.outlet.send(&stream_error(Some("515"), None), position);
        self.outlet.close_soon();
        tracing::info!(
            phone = signing.account.phone,
            device = signing.device,
            "linked"
        );
        Ok(())
    }

    /// Makes the client a device of the account, once both know the secret.
    pub(super) async fn pair(
        &self,
        world: &World,
        account: Arc<Account>,
        adv_secret: &[u8],
        by_lid: bool,
    ) -> Result<Paired> {
        let (done, signed) = oneshot::channel();
        let device = self.start(&account, adv_secret, by_lid, done)?;
        world.keep(&account);
        tokio::time::timeout(SIGNING, signed)
            .await
            .map_err(|_| anyhow!("the client did not answer in time"))?
            .map_err(|_| anyhow!("the client went away"))??;
        Ok(Paired {
            phone: account.phone.clone(),
            device,
        })
    }

    /// Signs the device's identity with the account's key and sends it. The number of the device.
    fn start(
        &self,
        account: &Arc<Account>,
        adv_secret: &[u8],
        by_lid: bool,
        done: oneshot::Sender<Result<()>>,
    ) -> Result<u16> {
        let mut signing = self.signing.lock().expect("no panic here");
        ensure!(signing.is_none(), "a phone has scanned it already");
        let device = account.change(|standing| {
            let device = standing.next_device;
            standing.next_device += 1;
            device
        });
        let identity = self.sign(account, device)?;
        let signed = identity.encode_to_vec();
        let mut mac = Hmac::<Sha256>::new_from_slice(adv_secret)?;
        mac.update(&signed);
        let container = ADVSignedDeviceIdentityHMAC {
            details: Some(signed),
            hmac: Some(mac.finalize().into_bytes().to_vec()),
            account_type: Some(ADVEncryptionType::E2EE),
        };
        let iq = message_id();
        let props = ClientPairingProps {
            is_chat_db_lid_migrated: Some(by_lid),
            ..Default::default()
        };
        let children = [
            leaf("device-identity", container.encode_to_vec()),
            leaf("client-props", props.encode_to_vec()),
            NodeBuilder::new("platform").attr("name", "android").build(),
            NodeBuilder::new("device")
                .attr("jid", Jid::pn_device(account.phone.as_str(), device))
                .attr("lid", Jid::lid_device(account.lid.as_str(), device))
                .build(),
        ];
        let success = NodeBuilder::new("iq")
            .attr("from", SERVER)
            .attr("type", "set")
            .attr("id", iq.as_str())
            .attr("xmlns", "md")
            .attr("t", unix_time())
            .children([NodeBuilder::new("pair-success").children(children).build()])
            .build();
        *signing = Some(Signing {
            iq,
            account: account.clone(),
            device,
            identity,
            by_lid,
            done,
        });
        self.outlet.send(&success, 0);
        Ok(device)
    }

    fn sign(&self, account: &Account, device: u16) -> Result<ADVSignedDeviceIdentity> {
        let details = ADVDeviceIdentity {
            raw_id: Some(account.keys.registration_id),
            timestamp: Some(unix_time().unsigned_abs()),
            key_index: Some(u32::from(device)),
            account_type: Some(ADVEncryptionType::E2EE),
            device_type: Some(ADVEncryptionType::E2EE),
        }
        .encode_to_vec();
        let key = account.keys.identity()?;
        let mut subject = ACCOUNT_SIGNATURE.to_vec();
        subject.extend_from_slice(&details);
        subject.extend_from_slice(&self.identity);
        let signature = key.calculate_signature(&subject, &mut rand::rng())?;
        Ok(ADVSignedDeviceIdentity {
            details: Some(details),
            account_signature_key: Some(key.public_key.public_key_bytes().to_vec()),
            account_signature: Some(signature.to_vec()),
            device_signature: None,
        })
    }
}
