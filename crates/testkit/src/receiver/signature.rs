//! The receiver's side of Standard Webhooks 1.0, written from its specification and from nothing
//! of Recado's: what signs is tested against what checks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A timestamp may be off by so many seconds, in either direction.
const TOLERANCE: i64 = 5 * 60;

/// The parts of a request that a signature covers, and the signatures.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `webhook-id`
    pub id: &'a str,
    /// `webhook-timestamp`, in unix seconds.
    pub timestamp: &'a str,
    /// `webhook-signature`: one or more, with spaces between them.
    pub signatures: &'a str,
    pub body: &'a [u8],
}

/// Why a request counts as not signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsigned {
    /// The header is missing.
    Header(&'static str),
    /// The secret is not `whsec_` and base64.
    Secret,
    /// The timestamp is not a number of seconds near to now.
    Timestamp,
    /// No signature fits.
    Signature,
}

/// Whether one of the signatures was made with the secret, and not long before or after `now`
/// (unix seconds).
pub fn verify(secret: &str, signed: Signed<'_>, now: i64) -> Result<(), Unsigned> {
    let key = secret.strip_prefix("whsec_").unwrap_or(secret);
    let key = STANDARD.decode(key).map_err(|_| Unsigned::Secret)?;
    let timestamp: i64 = signed.timestamp.parse().map_err(|_| Unsigned::Timestamp)?;
    if now.abs_diff(timestamp) > TOLERANCE.unsigned_abs() {
        return Err(Unsigned::Timestamp);
    }
    let mut expected = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| Unsigned::Secret)?;
    for part in [
        signed.id.as_bytes(),
        b".",
        signed.timestamp.as_bytes(),
        b".",
        signed.body,
    ] {
        expected.update(part);
    }
    let fits = |signature: &str| {
        let bytes = signature
            .strip_prefix("v1,")
            .and_then(|text| STANDARD.decode(text).ok());
        bytes.is_some_and(|bytes| expected.clone().verify_slice(&bytes).is_ok())
    };
    if signed.signatures.split(' ').any(fits) {
        Ok(())
    } else {
        Err(Unsigned::Signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const EXAMPLE: Signed<'_> = Signed {
        id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp: "1614265330",
        signatures: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        body: br#"{"test": 2432232314}"#,
    };
    const NOW: i64 = 1_614_265_330;

    #[test]
    fn the_published_example_verifies() {
        assert_eq!(verify(SECRET, EXAMPLE, NOW), Ok(()));
    }

    #[test]
    fn one_fitting_signature_among_several_is_enough() {
        let signatures = format!("v1,AAAA v2,zzz {} v1a,x", EXAMPLE.signatures);
        assert_eq!(
            verify(
                SECRET,
                Signed {
                    signatures: &signatures,
                    ..EXAMPLE
                },
                NOW
            ),
            Ok(())
        );
    }

    #[test]
    fn anything_changed_is_refused() {
        let refused = |signed| verify(SECRET, signed, NOW) == Err(Unsigned::Signature);
        assert!(refused(Signed {
            id: "msg_other",
            ..EXAMPLE
        }));
        assert!(refused(Signed {
            timestamp: "1614265331",
            ..EXAMPLE
        }));
        assert!(refused(Signed {
            body: b"{}",
            ..EXAMPLE
        }));
        assert!(refused(Signed {
            signatures: &EXAMPLE.signatures[3..],
            ..EXAMPLE
        }));
        assert_eq!(verify("whsec_AAAA", EXAMPLE, NOW), Err(Unsigned::Signature));
    }

    #[test]
    fn an_old_or_future_timestamp_is_refused() {
        for now in [NOW + 301, NOW - 301] {
            assert_eq!(verify(SECRET, EXAMPLE, now), Err(Unsigned::Timestamp));
        }
        assert_eq!(verify(SECRET, EXAMPLE, NOW + 300), Ok(()));
    }
}
