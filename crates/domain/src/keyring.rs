//! Encryption at rest: XChaCha20-Poly1305 under keys that have ids, so that they can be rotated.
//!
//! A sealed value is bound to its place by the additional data (table, column, row), so one cannot be
//! moved to another row. Layout: version 1, length of the key id, key id, 24-byte nonce, ciphertext.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::TryRng;
use rand::rngs::SysRng;
use thiserror::Error;

const VERSION: u8 = 1;
const NONCE: usize = 24;

/// The keys, newest first: the first one seals, all open.
pub struct Keyring {
    keys: Vec<(String, XChaCha20Poly1305)>,
}

/// Where a sealed value lives. Made by a [`Place`](crate::sealed::Place) only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aad<'a> {
    pub(crate) table: &'a str,
    pub(crate) column: &'a str,
    pub(crate) row: &'a str,
}

/// What is wrong with the text of a keyring. It never holds the key.
#[derive(Debug, Error)]
pub enum KeyringError {
    #[error("must list at least one key as id:base64")]
    Empty,
    #[error("key number {0} is not id:base64 with an id of 1 to 64 letters, digits, - or _")]
    Form(usize),
    #[error("key {0:?} is not the base64 of 32 bytes")]
    Length(String),
    #[error("the id {0:?} stands twice")]
    Repeated(String),
}

/// A sealed value cannot be opened.
#[derive(Debug, Error)]
pub enum SealError {
    #[error("not a sealed value")]
    Form,
    #[error("sealed under the key {0:?}, which is not in the keyring")]
    UnknownKey(String),
    #[error("sealed for another place, or altered")]
    Rejected,
}

impl Keyring {
    /// Reads `id:base64,id:base64`, newest first.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keys: Vec<(String, XChaCha20Poly1305)> = Vec::new();
        for (index, entry) in text.split(',').map(str::trim).enumerate() {
            if entry.is_empty() {
                continue;
            }
            let (id, key) = entry
                .split_once(':')
                .filter(|(id, _)| is_id(id))
                .ok_or(KeyringError::Form(index + 1))?;
            let key = zeroize::Zeroizing::new(
                BASE64_STANDARD
                    .decode(key.trim())
                    .map_err(|_| KeyringError::Length(id.to_owned()))?,
            );
            let cipher = XChaCha20Poly1305::new_from_slice(&key)
                .map_err(|_| KeyringError::Length(id.to_owned()))?;
            if keys.iter().any(|(known, _)| known == id) {
                return Err(KeyringError::Repeated(id.to_owned()));
            }
            keys.push((id.to_owned(), cipher));
        }
        match keys.is_empty() {
            true => Err(KeyringError::Empty),
            false => Ok(Self { keys }),
        }
    }

    /// Encrypts under the newest key.
    pub(crate) fn seal(&self, aad: Aad<'_>, plaintext: &[u8]) -> Vec<u8> {
        let (id, cipher) = &self.keys[0];
        let mut nonce = [0; NONCE];
        SysRng
            .try_fill_bytes(&mut nonce)
            .expect("the operating system gives random bytes");
        let payload = Payload {
            msg: plaintext,
            aad: &aad.bytes(),
        };
        let sealed = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a value in memory is far below the cipher's limit");
        let mut out = Vec::with_capacity(2 + id.len() + NONCE + sealed.len());
        out.extend_from_slice(&prefix(id));
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        out
    }

    /// The keys' ids, newest first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(id, _)| id.as_str())
    }

    /// What every value begins with that was sealed under the newest key, and no other does.
    pub(crate) fn newest_prefix(&self) -> Vec<u8> {
        prefix(&self.keys[0].0)
    }

    /// Decrypts under whichever key sealed it.
    pub(crate) fn open(&self, aad: Aad<'_>, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (id, nonce, ciphertext) = parts(sealed).ok_or(SealError::Form)?;
        let (_, cipher) = self
            .keys
            .iter()
            .find(|(known, _)| known.as_bytes() == id)
            .ok_or_else(|| SealError::UnknownKey(String::from_utf8_lossy(id).into_owned()))?;
        let payload = Payload {
            msg: ciphertext,
            aad: &aad.bytes(),
        };
        cipher
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| SealError::Rejected)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|(id, _)| id))
            .finish()
    }
}

impl Aad<'_> {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [self.table, self.column, self.row] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn prefix(id: &str) -> Vec<u8> {
    let length = u8::try_from(id.len()).expect("ids have at most 64 characters");
    [&[VERSION, length], id.as_bytes()].concat()
}

fn parts(sealed: &[u8]) -> Option<(&[u8], [u8; NONCE], &[u8])> {
    let (&[version, length], rest) = sealed.split_first_chunk::<2>()?;
    if version != VERSION {
        return None;
    }
    let (id, rest) = rest.split_at_checked(usize::from(length))?;
    let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>()?;
    Some((id, *nonce, ciphertext))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

    fn place(row: &str) -> Aad<'_> {
        Aad {
            table: "whatsapp_webhooks",
            column: "secret",
            row,
        }
    }

    #[test]
    fn what_was_sealed_opens_in_its_own_place_only() {
        let keyring = Keyring::parse(OLD).unwrap();
        let sealed = keyring.seal(place("1"), b"secret");
        assert_eq!(keyring.open(place("1"), &sealed).unwrap(), b"secret");
        assert!(matches!(
            keyring.open(place("2"), &sealed),
            Err(SealError::Rejected)
        ));
    }

    #[test]
    fn the_newest_key_seals_and_older_ones_still_open() {
        let sealed = Keyring::parse(OLD).unwrap().seal(place("1"), b"secret");
        let both = Keyring::parse(&format!("{NEW},{OLD}")).unwrap();
        assert_eq!(both.open(place("1"), &sealed).unwrap(), b"secret");
        let resealed = both.seal(place("1"), b"secret");
        assert!(matches!(
            Keyring::parse(OLD).unwrap().open(place("1"), &resealed),
            Err(SealError::UnknownKey(id)) if id == "new"
        ));
    }

    #[test]
    fn altered_and_cut_values_are_refused() {
        let keyring = Keyring::parse(OLD).unwrap();
        let mut sealed = keyring.seal(place("1"), b"secret");
        for length in 0..sealed.len() {
            assert!(keyring.open(place("1"), &sealed[..length]).is_err());
        }
        *sealed.last_mut().unwrap() ^= 1;
        assert!(keyring.open(place("1"), &sealed).is_err());
    }

    #[test]
    fn a_bad_keyring_says_what_is_wrong_and_not_the_key() {
        let error = |text: &str| Keyring::parse(text).unwrap_err().to_string();
        assert!(error("").contains("at least one"));
        assert!(error("nocolon").contains("number 1"));
        assert!(error("a:c2hvcnQ=").contains("32 bytes"));
        assert!(!error("a:c2hvcnQ=").contains("c2hvcnQ"));
        assert!(error(&format!("{OLD},{OLD}")).contains("twice"));
    }
}
