//! The text in a QR code: ref, noise key, identity key, secret, and what kind of client it is.

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

const DEEP_LINK: &str = "https://wa.me/settings/linked_devices#";

/// What is in a QR code.
pub(super) struct QrCode<'a> {
    pub(super) code: &'a str,
    pub(super) noise_key: Vec<u8>,
    pub(super) identity: Vec<u8>,
    pub(super) adv_secret: Vec<u8>,
}

impl<'a> QrCode<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self> {
        let text = text.trim();
        let text = text.strip_prefix(DEEP_LINK).unwrap_or(text);
        let parts: Vec<&str> = text.split(',').collect();
        let [code, noise_key, identity, adv_secret, ..] = parts[..] else {
            bail!("not a QR code of WhatsApp: ref, noise key, identity key and secret, by commas");
        };
        let key = |text: &str, what: &str| {
            let bytes = BASE64_STANDARD.decode(text).ok();
            let bytes = bytes.filter(|bytes| bytes.len() == 32);
            bytes.with_context(|| format!("the QR code's {what} is not 32 bytes in base64"))
        };
        Ok(Self {
            code,
            noise_key: key(noise_key, "noise key")?,
            identity: key(identity, "identity key")?,
            adv_secret: key(adv_secret, "secret")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qr_code_is_read_in_every_shape_that_clients_show() {
        let key = BASE64_STANDARD.encode([7; 32]);
        for text in [
            format!("2@ref,{key},{key},{key}"),
            format!("2@ref,{key},{key},{key},1"),
            format!("{DEEP_LINK}2@ref,{key},{key},{key},1\n"),
        ] {
            let qr = QrCode::parse(&text).unwrap();
            assert_eq!(qr.code, "2@ref");
            assert_eq!(qr.adv_secret, [7; 32]);
        }
        for text in ["", "hello", "a,b,c,d", "2@ref,AAAA,AAAA,AAAA,1"] {
            assert!(QrCode::parse(text).is_err(), "{text}");
        }
    }
}
