//! Linking by a code: a client waits under its number until somebody types what it shows into
//! the phone. The code is the password under which both sides send each other fresh keys; the
//! server never learns it, so a wrong one shows only when the phone can't open what the client
//! answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::sync::oneshot;
use wacore::crypto::hkdf_sha256_into;
use wacore::pair_code::PairCodeUtils;
use wacore_binary::NodeRef;
use wacore_binary::builder::NodeBuilder;
use wacore_libsignal::crypto::aes_256_gcm_decrypt;
use wacore_libsignal::protocol::{KeyPair, PublicKey};

use super::{Paired, Registration, SIGNING};
use crate::account::Account;
use crate::device::public_key;
use crate::stanza::{SERVER, bytes_in, iq_error, iq_result, jid, leaf, message_id, required, text};
use crate::world::{World, phone_number, unix_time};

/// As long as clients show a code.
const VALID: Duration = Duration::from_secs(180);
const TAG: &str = "link_code_companion_reg";
const REF: &str = "link_code_pairing_ref";

/// What a client has sent to be found under its number.
#[derive(Clone)]
struct Hello {
    phone: String,
    reference: Vec<u8>,
    wrapped_ephemeral: Vec<u8>,
    since: Instant,
}

/// A code that was typed in and waits for the client's key bundle.
struct Entry {
    account: Arc<Account>,
    ephemeral: KeyPair,
    companion_ephemeral: PublicKey,
    opened: oneshot::Sender<Result<Secret>>,
}

/// What the device's identity is authenticated with.
type Secret = [u8; 32];

#[derive(Default)]
pub(super) struct LinkCode {
    hello: Option<Hello>,
    entry: Option<Entry>,
}

/// Why a code that was typed in links nothing.
#[derive(Debug)]
pub(crate) enum CodeError {
    /// It can't be a code.
    Malformed,
    /// No client waits under that number.
    NobodyWaits,
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for CodeError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// The phone with that number is given the code that a client shows.
pub(crate) async fn enter(
    world: &World,
    phone: &str,
    code: &str,
    by_lid: bool,
) -> Result<Paired, CodeError> {
    let code: String = code
        .chars()
        .filter(|c| !matches!(c, '-' | ' '))
        .map(|c| c.to_ascii_uppercase())
        .collect();
    if !PairCodeUtils::validate_code(&code) {
        return Err(CodeError::Malformed);
    }
    let registration = world
        .pairings
        .by_number
        .lock()
        .expect("no panic here")
        .get(phone)
        .cloned()
        .ok_or(CodeError::NobodyWaits)?;
    let account = world.account(phone)?;
    if account.standing().banned {
        return Err(anyhow!("{phone} is banned").into());
    }
    let secret = registration.exchange_keys(account.clone(), code).await?;
    Ok(registration.pair(world, account, &secret, by_lid).await?)
}

impl Registration {
    /// Questions about linking by a code; `false` for other stanzas.
    pub(super) fn link_code(
        self: &Arc<Self>,
        world: &World,
        node: &NodeRef<'_>,
        id: &str,
    ) -> Result<bool> {
        let Some(step) = node.get_optional_child(TAG) else {
            return Ok(false);
        };
        let answer = match text(step, "stage").as_deref() {
            Some("companion_hello") => self.hello(world, step),
            Some("companion_finish") => self.finish(step),
            other => Err(anyhow!("no stage {other:?}")),
        };
        let answer = match answer {
            Ok(Some(reference)) => {
                let answer = NodeBuilder::new(TAG)
                    .attr("stage", required(step, "stage")?)
                    .children([leaf(REF, reference)]);
                iq_result(id, vec![answer.build()])
            }
            Ok(None) => iq_result(id, vec![]),
            Err(error) => {
                tracing::info!("linking by code refused: {error:#}");
                iq_error(id, 400, "bad-request")
            }
        };
        self.outlet.send(&answer, 0);
        Ok(true)
    }

    /// The client can be found under its number from now on; whoever was there before cannot.
    fn hello(self: &Arc<Self>, world: &World, step: &NodeRef<'_>) -> Result<Option<Vec<u8>>> {
        let number = jid(step, "jid").context("no number")?;
        let phone = phone_number(&number.user)?;
        let key = bytes_in(step, "companion_server_auth_key_pub");
        ensure!(key == Some(&self.noise_key[..]), "another client's key");
        let wrapped = bytes_in(step, "link_code_pairing_wrapped_companion_ephemeral_pub");
        let reference = rand::random::<[u8; 32]>().to_vec();
        let mut link = self.link_code.lock().expect("no panic here");
        let mut by_number = world.pairings.by_number.lock().expect("no panic here");
        if let Some(before) = &link.hello
            && by_number
                .get(&before.phone)
                .is_some_and(|waiting| Arc::ptr_eq(waiting, self))
        {
            by_number.remove(&before.phone);
        }
        by_number.insert(phone.clone(), self.clone());
        *link = LinkCode {
            hello: Some(Hello {
                phone,
                reference: reference.clone(),
                wrapped_ephemeral: wrapped.context("no ephemeral key")?.to_vec(),
                since: Instant::now(),
            }),
            entry: None,
        };
        Ok(Some(reference))
    }

    /// The client has answered the phone; whether the phone can read it is the phone's affair.
    fn finish(&self, step: &NodeRef<'_>) -> Result<Option<Vec<u8>>> {
        let mut link = self.link_code.lock().expect("no panic here");
        let hello = link.hello.as_ref().context("no code was asked for")?;
        ensure!(
            bytes_in(step, REF) == Some(&hello.reference),
            "an unknown ref"
        );
        let Some(entry) = link.entry.take() else {
            return Ok(None);
        };
        let bundle = bytes_in(step, "link_code_pairing_wrapped_key_bundle").unwrap_or_default();
        let secret = entry.open(bundle, &self.identity);
        let _ = entry.opened.send(secret);
        Ok(None)
    }

    /// The number under which it waits for a code.
    pub(super) fn waits_under(&self) -> Option<String> {
        let link = self.link_code.lock().expect("no panic here");
        Some(link.hello.as_ref()?.phone.clone())
    }

    async fn exchange_keys(&self, account: Arc<Account>, code: String) -> Result<Secret> {
        let hello = {
            let link = self.link_code.lock().expect("no panic here");
            link.hello.clone().context("the client went away")?
        };
        ensure!(hello.since.elapsed() < VALID, "the code has expired");
        let ephemeral = KeyPair::generate(&mut rand::rng());
        let public: [u8; 32] = ephemeral.public_key.public_key_bytes().try_into()?;
        let wrapped = hello.wrapped_ephemeral.clone();
        // Both take tens of milliseconds each, on purpose.
        let derived = tokio::task::spawn_blocking(move || {
            let companion = PairCodeUtils::decrypt_primary_ephemeral_pub(&wrapped, &code)?;
            anyhow::Ok((
                public_key(&companion)?,
                PairCodeUtils::encrypt_ephemeral_pub(&public, &code),
            ))
        });
        let (companion_ephemeral, wrapped) = derived.await??;
        let identity = account.keys.identity()?.public_key;
        let (opened, secret) = oneshot::channel();
        {
            let mut link = self.link_code.lock().expect("no panic here");
            ensure!(link.entry.is_none(), "a code is being tried already");
            link.entry = Some(Entry {
                account,
                ephemeral,
                companion_ephemeral,
                opened,
            });
        }
        let hello = NodeBuilder::new(TAG)
            .attr("stage", "primary_hello")
            .children([
                leaf("link_code_pairing_wrapped_primary_ephemeral_pub", wrapped),
                leaf("primary_identity_pub", identity.public_key_bytes()),
                leaf(REF, hello.reference),
            ])
            .build();
        let notification = NodeBuilder::new("notification")
            .attr("from", SERVER)
            .attr("id", message_id())
            .attr("t", unix_time())
            .attr("type", TAG)
            .children([hello])
            .build();
        self.outlet.send(&notification, 0);
        let answer = tokio::time::timeout(SIGNING, secret).await;
        self.link_code.lock().expect("no panic here").entry = None;
        match answer {
            Ok(Ok(secret)) => secret,
            Ok(Err(_)) => bail!("the client went away"),
            Err(_) => bail!("the client did not answer in time"),
        }
    }
}

impl Entry {
    /// Opens the client's bundle, which only the holder of the same code can have made.
    fn open(&self, wrapped: &[u8], identity: &[u8; 32]) -> Result<Secret> {
        const WRONG: &str = "the code is not the one that the client shows";
        ensure!(wrapped.len() > 44, "the client's key bundle is too short");
        let shared = &self.ephemeral.private_key;
        let shared = shared.calculate_agreement(&self.companion_ephemeral)?;
        let mut key = [0; 32];
        let purpose = b"link_code_pairing_key_bundle_encryption_key";
        hkdf_sha256_into(&shared, Some(&wrapped[..32]), purpose, &mut key)?;
        let nonce = wrapped[32..44].try_into().expect("twelve bytes");
        let mut bundle = Vec::new();
        aes_256_gcm_decrypt(&key, nonce, b"", &wrapped[44..], &mut bundle).context(WRONG)?;
        ensure!(bundle.len() == 96, "a key bundle has 96 bytes");
        let own = self.account.keys.identity()?;
        ensure!(
            bundle[..32] == identity[..] && bundle[32..64] == *own.public_key.public_key_bytes(),
            "the client's key bundle names other identities"
        );
        let identity_shared = own
            .private_key
            .calculate_agreement(&public_key(identity)?)?;
        let material = [&shared[..], &identity_shared[..], &bundle[64..]].concat();
        let mut secret = [0; 32];
        hkdf_sha256_into(&material, None, b"adv_secret", &mut secret)?;
        Ok(secret)
    }
}
