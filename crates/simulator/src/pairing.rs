//! Linking a device: its registration waits under the refs of its QR codes, or under its number,
//! until a phone scans one or is given its code, signs the device's identity and makes it a device
//! of its account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use wacore_binary::NodeRef;
use wacore_binary::builder::NodeBuilder;
use waproto::whatsapp::ClientPayload;
use waproto::whatsapp::client_payload::DevicePairingRegistrationData;

mod link_code;
mod qr_code;
mod signing;

use link_code::LinkCode;
pub(crate) use link_code::{CodeError, enter};
use qr_code::QrCode;
use signing::Signing;

use crate::account::Account;
use crate::connection::{Incoming, Outlet};
use crate::device::SignedPreKey;
use crate::session::Refusal;
use crate::stanza::{SERVER, leaf, message_id, number, text};
use crate::world::World;

const REFS: usize = 6;
/// How long a scan waits for the client to sign.
const SIGNING: Duration = Duration::from_secs(20);

/// The registrations that wait for a phone.
#[derive(Default)]
pub(crate) struct Pairings {
    by_ref: Mutex<HashMap<String, Arc<Registration>>>,
    by_number: Mutex<HashMap<String, Arc<Registration>>>,
}

impl Pairings {
    /// Ends the connection of the client that waits under that number; whether there was one.
    pub(crate) fn hang_up(&self, phone: &str) -> bool {
        let by_number = self.by_number.lock().expect("no panic here");
        let waiting = by_number.get(phone);
        waiting.inspect(|waiting| waiting.outlet.close()).is_some()
    }

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
