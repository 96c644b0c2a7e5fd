//! Signatures by Standard Webhooks 1.0.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use domain::keyring::SealError;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

const PREFIX: &str = "whsec_";

/// A signing secret as the bytes that it stands for.
pub(crate) struct Key(Zeroizing<Vec<u8>>);

/// A webhook's secret can't be used. Its receiver is not to blame.
#[derive(Debug, Error)]
pub(crate) enum SecretError {
    #[error("its secret or its headers can't be opened: {0}")]
    Sealed(#[from] SealError),
    #[error("the signing secret is not whsec_ and base64")]
    Form,
}

impl Key {
    pub(crate) fn parse(secret: &SecretString) -> Result<Self, SecretError> {
        let text = secret.expose_secret();
        let text = text.strip_prefix(PREFIX).unwrap_or(text);
        let bytes = Zeroizing::new(
            BASE64_STANDARD
                .decode(text)
                .map_err(|_| SecretError::Form)?,
        );
        match bytes.is_empty() {
            true => Err(SecretError::Form),
            false => Ok(Self(bytes)),
        }
    }
}

/// The value of `webhook-signature`: one signature per key, with spaces between them.
pub(crate) fn signature<'a>(
    keys: impl IntoIterator<Item = &'a Key>,
    id: &str,
    unix_seconds: i64,
    body: &[u8],
) -> String {
    let head = format!("{id}.{unix_seconds}.");
    let mut value = String::with_capacity(96);
    for Key(key) in keys {
        let mut mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(head.as_bytes());
        mac.update(body);
        let separator = if value.is_empty() { "" } else { " " };
        let encoded = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        write!(value, "{separator}v1,{encoded}").expect("a string takes whatever is written");
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use standardwebhooks::Webhook as Reference;

    use super::*;

    fn key(secret: &str) -> Key {
        Key::parse(&secret.into()).unwrap()
    }

    #[test]
    fn the_published_example_comes_out() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signature = signature(
            [&key],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn during_a_rotation_there_are_two_signatures_and_each_secret_verifies() {
        let (new, old) = ("whsec_bmV3bmV3bmV3bmV3bmV3", "whsec_b2xkb2xkb2xkb2xkb2xk");
        let both = signature([&key(new), &key(old)], "msg_1", 1, b"{}");
        let [first, second] = [new, old].map(|secret| {
            Reference::new(secret)
                .unwrap()
                .sign("msg_1", 1, b"{}")
                .unwrap()
        });
        assert_eq!(both, format!("{first} {second}"));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for secret in ["", "whsec_", "whsec_not base64"] {
            assert!(Key::parse(&secret.into()).is_err(), "{secret:?}");
        }
    }

    proptest! {
        #[test]
        fn the_reference_implementation_signs_the_same(
            secret in prop::collection::vec(any::<u8>(), 1..100),
            id in "[a-zA-Z0-9_-]{1,40}",
            at in 0_i64..4_000_000_000,
            body in ".*",
        ) {
            let encoded = format!("{PREFIX}{}", BASE64_STANDARD.encode(&secret));
            let expected = Reference::from_bytes(secret).unwrap();
            prop_assert_eq!(
                signature([&key(&encoded)], &id, at, body.as_bytes()),
                expected.sign(&id, at, body.as_bytes()).unwrap()
            );
        }
    }
}
