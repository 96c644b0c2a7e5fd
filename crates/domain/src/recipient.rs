//! Whom a client writes to.

use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

use crate::jid::Jid;
use crate::phone::{Phone, PhoneError};

/// The address of a person or a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recipient(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecipientError {
    #[error("must be a phone number, or the address of a group (…@g.us) or of a person (…@lid)")]
    Address,
    #[error(transparent)]
    Phone(#[from] PhoneError),
}

/// The longest local part: two numbers with a hyphen between them, of an old group.
const LONGEST: usize = 40;

impl Recipient {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let local = |user: &str, signs: &[u8]| {
            let sign = |byte: u8| byte.is_ascii_digit() || signs.contains(&byte);
            user.len() <= LONGEST
                && user.bytes().any(|byte| byte.is_ascii_digit())
                && user.bytes().all(sign)
        };
        match text.trim().split_once('@') {
            None | Some((_, "s.whatsapp.net" | "c.us")) => {
                let phone: Phone = text.parse()?;
                Ok(Self(format!("{}@s.whatsapp.net", phone.as_str())))
            }
            Some((user, "g.us")) if local(user, b"-") => Ok(Self(format!("{user}@g.us"))),
            Some((_, "lid")) => match Jid::parse(text.trim()) {
                Some(Jid { user, .. }) if local(user, b"") => Ok(Self(format!("{user}@lid"))),
                _ => Err(RecipientError::Address),
            },
            Some(_) => Err(RecipientError::Address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_groups_have_addresses() {
        for (text, expected) in [
            ("+55 (11) 99999-9999", Some("5511999999999@s.whatsapp.net")),
            (
                "5511999999999:3@s.whatsapp.net",
                Some("5511999999999@s.whatsapp.net"),
            ),
            ("100000012345678@lid", Some("100000012345678@lid")),
            ("100000012345678:4@lid", Some("100000012345678@lid")),
            ("120363021033254949@g.us", Some("120363021033254949@g.us")),
            (
                "5511999999999-1500000000@g.us",
                Some("5511999999999-1500000000@g.us"),
            ),
            ("status@broadcast", None),
            ("120363021033254949@newsletter", None),
            ("x@g.us", None),
            ("-@g.us", None),
            ("@g.us", None),
            ("@lid", None),
            ("", None),
            ("12", None),
        ] {
            let parsed = text.parse::<Recipient>().ok();
            assert_eq!(parsed.as_ref().map(Recipient::as_str), expected, "{text}");
        }
    }
}
