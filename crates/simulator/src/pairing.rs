//! Linking a device: its registration waits under the refs of its QR codes, or under its number,
//! until a phone scans one or is given its code, signs the device's identity and makes it a device
//! of its account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::oneshot;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, NodeRef};
use waproto::buffa::Message as _;
use waproto::whatsapp::client_payload::DevicePairingRegistrationData;
use waproto::whatsapp::{
    ADVDeviceIdentity, ADVEncryptionType, ADVSignedDeviceIdentity, ADVSignedDeviceIdentityHMAC,
    ClientPairingProps, ClientPayload,
};

mod link_code;
mod qr_code;

use link_code::LinkCode;
pub(crate) use link_code::{CodeError, enter};
use qr_code::QrCode;

use crate::account::Account;
use crate::connection::{Incoming, Outlet};
use crate::device::{Device, Profile, SignedPreKey, public_key};
use crate::device_list;
use crate::journal::Batch;
use crate::session::Refusal;
use crate::stanza::{SERVER, leaf, message_id, number, stream_error, text};
use crate::world::{World, unix_time};

const REFS: usize = 6;
/// How long a scan waits for the client to sign.
const SIGNING: Duration = Duration::from_secs(20);
const ACCOUNT_SIGNATURE: [u8; 2] = [6, 0];
const DEVICE_SIGNATURE: [u8; 2] = [6, 1];

/// The registrations that wait for a phone.
#[derive(Default)]
pub(crate) struct Pairings {
    by_ref: Mutex<HashMap<String, Arc<Registration>>>,
    by_number: Mutex<HashMap<String, Arc<Registration>>>,
}

impl Pairings {
    fn forget(&self, registration: &Arc<Registration>, refs: &[String]) {
        let mut by_ref = self.by_ref.lock().expect("no panic here");
        for code in refs {
            by_ref.remove(code);
        }
        drop(by_ref);
        if let Some(phone) = registration.waits_under() {
            let mut by_number = self.by_number.lock().expect("no panic here");
            // Another client may wait there by now.
            if by_number
                .get(&phone)
                .is_some_and(|waiting| Arc::ptr_eq(waiting, registration))
            {
                by_number.remove(&phone);
            }
        }
    }
}

/// A client that wants to be linked.
struct Registration {
    noise_key: [u8; 32],
    identity: [u8; 32],
    registration_id: u32,
    signed_prekey: SignedPreKey,
    push_name: Option<String>,
    outlet: Outlet,
    signing: Mutex<Option<Signing>>,
    link_code: Mutex<LinkCode>,
}

/// A scan that waits for the client's signature.
struct Signing {
    iq: String,
    account: Arc<Account>,
    device: u16,
    identity: ADVSignedDeviceIdentity,
    by_lid: bool,
    done: oneshot::Sender<Result<()>>,
}

/// What a scan has led to.
pub(crate) struct Paired {
    pub(crate) phone: String,
    pub(crate) device: u16,
}

/// Shows QR refs to an unregistered client and waits until it is linked or leaves.
pub(crate) async fn serve(
    world: &World,
    payload: &ClientPayload,
    noise_key: [u8; 32],
    outlet: Outlet,
    mut incoming: Incoming,
) -> Result<()> {
    if let Some(refusal) = Refusal::wished(&world.faults.of(None)) {
        outlet.send(&refusal.stanza(), 0);
        outlet.close_soon();
        while incoming.next().await?.is_some() {}
        return Ok(());
    }
    let registration = Arc::new(Registration::read(payload, noise_key, outlet)?);
    let refs: Vec<String> = (0..REFS)
        .map(|_| format!("2@{}", BASE64_STANDARD.encode(rand::random::<[u8; 32]>())))
        .collect();
    {
        let mut by_ref = world.pairings.by_ref.lock().expect("no panic here");
        for code in &refs {
            by_ref.insert(code.clone(), registration.clone());
        }
    }
    registration.offer(&refs);
    let result = registration.listen(world, &mut incoming).await;
    world.pairings.forget(&registration, &refs);
    result
}

impl Registration {
    fn read(payload: &ClientPayload, noise_key: [u8; 32], outlet: Outlet) -> Result<Self> {
        let data: &DevicePairingRegistrationData = &payload.device_pairing_data;
        let key = |bytes: &Option<Vec<u8>>, what: &str| -> Result<[u8; 32]> {
            let bytes = bytes.as_deref().and_then(|bytes| bytes.try_into().ok());
            bytes.with_context(|| format!("the registration has no {what}"))
        };
        let count = |bytes: &Option<Vec<u8>>, what: &str| {
            let value = bytes.as_deref().and_then(number);
            value.with_context(|| format!("the registration has no {what}"))
        };
        Ok(Self {
            noise_key,
            identity: key(&data.e_ident, "identity key")?,
            registration_id: count(&data.e_regid, "registration id")?,
            signed_prekey: SignedPreKey {
                id: count(&data.e_skey_id, "signed prekey id")?,
                public: key(&data.e_skey_val, "signed prekey")?,
                signature: data.e_skey_sig.clone().context("no prekey signature")?,
            },
            push_name: payload.push_name.clone().filter(|name| !name.is_empty()),
            outlet,
            signing: Mutex::default(),
            link_code: Mutex::default(),
        })
    }

    fn offer(&self, refs: &[String]) {
        let refs = refs.iter().map(|code| leaf("ref", code.as_bytes()));
        let offer = NodeBuilder::new("iq")
            .attr("from", SERVER)
            .attr("type", "set")
            .attr("id", message_id())
            .attr("xmlns", "md")
            .children([NodeBuilder::new("pair-device").children(refs).build()])
            .build();
        self.outlet.send(&offer, 0);
    }

    async fn listen(self: &Arc<Self>, world: &World, incoming: &mut Incoming) -> Result<()> {
        while let Some(stanza) = incoming.next().await? {
            world.stats.stanzas_in.add();
            let node = stanza.get();
            if node.tag == "iq" {
                self.iq(world, node)?;
            }
        }
        Ok(())
    }

    fn iq(self: &Arc<Self>, world: &World, node: &NodeRef<'_>) -> Result<()> {
        let id = text(node, "id").unwrap_or_default();
        if self.link_code(world, node, &id)? {
            return Ok(());
        }
        let mut signing = self.signing.lock().expect("no panic here");
        if signing.as_ref().is_none_or(|signing| signing.iq != id) {
            if text(node, "type").as_deref() == Some("get") {
                self.outlet.send(&crate::stanza::iq_result(&id, vec![]), 0);
            }
            return Ok(());
        }
        let signing = signing.take().expect("it has the id of this answer");
        let result = self.link(world, &signing, node);
        if let Err(error) = &result {
            tracing::info!(phone = signing.account.phone, "pairing failed: {error:#}");
        }
        let _ = signing.done.send(result);
        Ok(())
    }

    /// The client has signed: it becomes a device, and is told to connect again as one.
    fn link(&self, world: &World, signing: &Signing, answer: &NodeRef<'_>) -> Result<()> {
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
}

/// A phone scans the code. Without a number, clients that registered under one push name share
/// an account, and others get one each.
pub(crate) async fn scan(
    world: &World,
    qr: &str,
    phone: Option<&str>,
    by_lid: bool,
) -> Result<Paired> {
    let qr = QrCode::parse(qr)?;
    let registration = world
        .pairings
        .by_ref
        .lock()
        .expect("no panic here")
        .get(qr.code)
        .cloned()
        .context("no client shows this code (any more)")?;
    ensure!(
        registration.noise_key[..] == qr.noise_key && registration.identity[..] == qr.identity,
        "the keys in the code are not those of the client that shows it"
    );
    let account = match phone {
        Some(phone) => world.account(phone)?,
        None => account_for(world, registration.push_name.as_deref())?,
    };
    ensure!(!account.standing().banned, "{} is banned", account.phone);
    registration
        .pair(world, account, &qr.adv_secret, by_lid)
        .await
}

fn account_for(world: &World, push_name: Option<&str>) -> Result<Arc<Account>> {
    let Some(name) = push_name else {
        return world.new_account();
    };
    if let Some(account) = world.named(name) {
        return Ok(account);
    }
    let account = world.new_account()?;
    world.name(&account, name);
    Ok(account)
}

impl Registration {
    /// Makes the client a device of the account, once both know the secret.
    async fn pair(
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
