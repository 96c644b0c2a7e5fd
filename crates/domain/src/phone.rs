//! Phone numbers as WhatsApp has them: digits with the country code and nothing else.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

use crate::jid::Jid;

/// A number in digits, as it was given: 7 to 15 of them (E.164), no leading 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Phone(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PhoneError {
    #[error("holds something other than digits and the signs of a written number")]
    NotANumber,
    #[error("must have 7 to 15 digits with the country code")]
    Length,
    #[error("must begin with a country code, not with 0")]
    LeadingZero,
}

impl Phone {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which numbers are compared: one for all numbers that WhatsApp treats as one.
    ///
    /// - Brazil: mobile numbers (6 to 9 after the area code) have gained a ninth digit, a 9 in front;
    ///   older accounts are still known without it.
    /// - Mexico: mobile numbers were written with a 1 after the country code.
    /// - Argentina: mobile numbers are written with a 9 after the country code.
    pub fn key(&self) -> String {
        let digits = self.0.as_str();
        let bytes = digits.as_bytes();
        let without = |at: usize| format!("{}{}", &digits[..at], &digits[at + 1..]);
        match (bytes, bytes.len()) {
            ([b'5', b'5', _, _, b'9', b'6'..=b'9', ..], 13) => without(4),
            ([b'5', b'2', b'1', ..], 13) | ([b'5', b'4', b'9', ..], 13) => without(2),
            _ => digits.to_owned(),
        }
    }
}

impl FromStr for Phone {
    type Err = PhoneError;

    /// Takes what people write (`+55 (11) 99999-9999`) and what WhatsApp writes
    /// (`5511999999999@s.whatsapp.net`, with or without a device).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let number = match Jid::parse(text) {
            None => text,
            Some(Jid {
                user,
                server: "s.whatsapp.net" | "c.us",
            }) => user,
            Some(_) => return Err(PhoneError::NotANumber),
        };
        let number = number.strip_prefix('+').unwrap_or(number);
        if !number.chars().all(|c| {
            c.is_ascii_digit() || matches!(c, ' ' | '-' | '.' | '(' | ')' | '/' | '\u{a0}')
        }) {
            return Err(PhoneError::NotANumber);
        }
        let digits: String = number.chars().filter(char::is_ascii_digit).collect();
        match digits.len() {
            7..=15 if digits.starts_with('0') => Err(PhoneError::LeadingZero),
            7..=15 => Ok(Self(digits)),
            _ => Err(PhoneError::Length),
        }
    }
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phone(text: &str) -> Phone {
        text.parse().unwrap()
    }

    #[test]
    fn written_numbers_and_whatsapp_ids_are_the_same_digits() {
        for text in [
            "5511999999999",
            "+55 (11) 99999-9999",
            "55 11 99999.9999",
            "5511999999999@s.whatsapp.net",
            "5511999999999:12@s.whatsapp.net",
            "5511999999999.0:12@s.whatsapp.net",
            "5511999999999@c.us",
        ] {
            assert_eq!(phone(text).as_str(), "5511999999999", "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused_with_the_reason() {
        let error = |text: &str| text.parse::<Phone>().unwrap_err();
        assert_eq!(error("55119999abcd"), PhoneError::NotANumber);
        assert_eq!(error("123@lid"), PhoneError::NotANumber);
        assert_eq!(error("12+34567890"), PhoneError::NotANumber);
        assert_eq!(error("５５１１９９９９９９９"), PhoneError::NotANumber);
        assert_eq!(error(""), PhoneError::Length);
        assert_eq!(error("123456"), PhoneError::Length);
        assert_eq!(error("1234567890123456"), PhoneError::Length);
        assert_eq!(error("0511999999999"), PhoneError::LeadingZero);
    }

    #[test]
    fn numbers_that_whatsapp_treats_as_one_compare_as_one() {
        assert_eq!(phone("5511999999999").key(), phone("551199999999").key());
        assert_eq!(phone("5215512345678").key(), phone("525512345678").key());
        assert_eq!(phone("5491123456789").key(), phone("541123456789").key());
    }

    #[test]
    fn a_brazilian_landline_is_not_the_mobile_number_that_holds_its_digits() {
        assert_ne!(phone("5511933334444").key(), phone("551133334444").key());
    }

    #[test]
    fn other_countries_are_compared_as_they_are() {
        assert_eq!(phone("14155552671").key(), "14155552671");
    }
}
