//! API tokens and webhook signing secrets: how they are made and how they are kept.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rand::TryRng;
use rand::rngs::SysRng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .expect("the operating system gives random bytes");
    bytes
}

/// A new API token: 256 random bits, recognisable by its prefix.
pub fn new_api_token() -> SecretString {
    format!("rcd_{}", BASE64_URL_SAFE_NO_PAD.encode(random::<32>())).into()
}

/// What is stored of a token, and compared: its SHA-256. A token that cannot be guessed needs no slow
/// hash, and a look-up by hash leaks nothing through its timing.
pub fn hash(token: &SecretString) -> Vec<u8> {
    Sha256::digest(token.expose_secret().as_bytes()).to_vec()
}

/// A new signing secret as Standard Webhooks writes it: `whsec_` and the base64 of 32 random bytes.
pub fn new_signing_secret() -> SecretString {
    format!("whsec_{}", BASE64_STANDARD.encode(random::<32>())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_secrets_are_never_made_twice() {
        assert_ne!(
            new_api_token().expose_secret(),
            new_api_token().expose_secret()
        );
        assert_eq!(new_signing_secret().expose_secret().len(), 6 + 44);
    }
}
