//! Phone numbers in what is logged: `5511999999999` becomes `5511*******99`. A number is any 7 to 15 digits in a
//! row, alone or in a JID, that are not part of something else.

use std::borrow::Cow;
use std::iter::repeat_n;
use std::ops::Range;

const SHORTEST: usize = 7;
const LONGEST: usize = 15;
/// How many digits stay in front, and at the end.
const FRONT: usize = 4;
const END: usize = 2;
/// How far from a number a word is looked at. Lines can be long, and made by strangers.
const FAR: usize = 40;

/// The text with its numbers masked.
pub(super) fn mask(text: &str) -> Cow<'_, str> {
    mask_if(text, |_| true)
}

/// The same for a JSON object, whose own numbers (`"duration_ms":1234567`) stay.
pub(super) fn mask_json(json: &str) -> Cow<'_, str> {
    mask_if(json, |before| !is_key(before))
}

/// `wanted` is asked about what stands before a number.
fn mask_if(text: &str, wanted: impl Fn(&[u8]) -> bool) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut masked, mut copied, mut looked) = (String::new(), 0, 0);
    while let Some(digits) = digits(bytes, looked) {
        looked = digits.end;
        let Some(number) = number(bytes, digits) else {
            continue;
        };
        if wanted(&bytes[..number.start]) {
            masked.push_str(&text[copied..number.start + FRONT]);
            masked.extend(repeat_n('*', number.len() - FRONT - END));
            copied = number.end - END;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(&text[copied..]);
    Cow::Owned(masked)
}

/// The next digits in a row that are enough for a number. Looks at every seventh byte only.
fn digits(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from + SHORTEST - 1;
    while let Some(byte) = text.get(at) {
        if byte.is_ascii_digit() {
            let start = at - length(text[from..at].iter().rev(), u8::is_ascii_digit);
            let end = at + length(text[at..].iter(), u8::is_ascii_digit);
            if end - start >= SHORTEST {
                return Some(start..end);
            }
            at = end;
        }
        at += SHORTEST;
    }
    None
}

/// How many of the bytes are so, until one isn't.
fn length<'a>(bytes: impl Iterator<Item = &'a u8>, so: fn(&u8) -> bool) -> usize {
    bytes.take_while(|byte| so(byte)).count()
}

/// The number that these digits are, if they are one.
fn number(text: &[u8], digits: Range<usize>) -> Option<Range<usize>> {
    let word = word(text, &digits);
    let number = digits.start.max(word.start)..digits.end;
    let is_other = is_hex(&text[word])
        || is_in_uuid(text, &number)
        || is_fraction(&text[..number.start])
        || is_day(&text[..number.start], number.len());
    ((SHORTEST..=LONGEST).contains(&number.len()) && !is_other).then_some(number)
}

/// The letters and digits around, without an escape (`\n`, `\u000b`, `%2B`) that they begin with.
fn word(text: &[u8], digits: &Range<usize>) -> Range<usize> {
    let before = text[..digits.start].iter().rev().take(FAR);
    let start = digits.start - length(before, u8::is_ascii_alphanumeric);
    let after = text[digits.end..].iter().take(FAR);
    let end = digits.end + length(after, u8::is_ascii_alphanumeric);
    let escape = match (&text[..start], text.get(start)) {
        ([.., b'\\'], Some(b'u')) => 5,
        ([.., b'\\'], Some(byte)) if byte.is_ascii_alphabetic() => 1,
        ([.., b'%'], _) => 2,
        _ => 0,
    };
    (start + escape).min(end)..end
}

/// Hashes and message ids (`3EB0…`).
fn is_hex(word: &[u8]) -> bool {
    word.iter().all(u8::is_ascii_hexdigit) && word.iter().any(u8::is_ascii_alphabetic)
}

/// The first or last group of a UUID; the others are too short.
fn is_in_uuid(text: &[u8], digits: &Range<usize>) -> bool {
    let start = match digits.len() {
        8 => Some(digits.start),
        12 => digits.end.checked_sub(36),
        _ => None,
    };
    let uuid = start.and_then(|start| text.get(start..start + 36));
    uuid.is_some_and(|uuid| {
        let mut bytes = uuid.iter().enumerate();
        bytes.all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    })
}

/// Of a second, of a duration; the last part of a version.
fn is_fraction(before: &[u8]) -> bool {
    matches!(before, [.., digit, b'.'] if digit.is_ascii_digit())
}

/// In the name of a partition, `whatsapp_messages_20261127`.
fn is_day(before: &[u8], length: usize) -> bool {
    length == 8 && before.ends_with(b"_")
}

/// Whether this ends with a key of a JSON object. (A quote within a string has a backslash before it, and one that
/// opens a string has a bracket, a comma or a colon.)
fn is_key(before: &[u8]) -> bool {
    let before = before.strip_suffix(b"-").unwrap_or(before);
    matches!(before, [.., byte, b'"', b':'] if byte.is_ascii_alphanumeric() || *byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_masked_wherever_they_stand() {
        let cases = [
            ("5511999999999", "5511*******99"),
            ("1234567", "1234*67"),
            ("123456789012345", "1234*********45"),
            (
                "from +5511999999999, to 4930123456.",
                "from +5511*******99, to 4930****56.",
            ),
            (
                "5511999999999@s.whatsapp.net",
                "5511*******99@s.whatsapp.net",
            ),
            (
                "5511999999999:12@s.whatsapp.net",
                "5511*******99:12@s.whatsapp.net",
            ),
            ("5511999999999.0:12@c.us", "5511*******99.0:12@c.us"),
            ("236395184570386@lid", "2363*********86@lid"),
            (
                "5511999999999-1400000000@g.us",
                "5511*******99-1400****00@g.us",
            ),
            (
                r#"Key (phone)=(5511999999999), "5511888888888""#,
                r#"Key (phone)=(5511*******99), "5511*******88""#,
            ),
            (r#"{"to":5511999999999}"#, r#"{"to":5511*******99}"#),
            (
                "user5511999999999 pn_5511999999999_1",
                "user5511*******99 pn_5511*******99_1",
            ),
            ("?to=%2B5511999999999%40c.us", "?to=%2B5511*******99%40c.us"),
            (
                r"a\n5511999999999\t5511999999999",
                r"a\n5511*******99\t5511*******99",
            ),
            (
                r"\b5511999999999\u00015511999999999",
                r"\b5511*******99\u00015511*******99",
            ),
            ("é5511999999999é", "é5511*******99é"),
        ];
        for (text, masked) in cases {
            assert_eq!(mask(text), masked);
        }
    }

    #[test]
    fn what_is_no_number_stays() {
        let cases = [
            "",
            "123456",
            "127.0.0.1:54321 in 12.5 ms",
            "2026-11-27T20:00:00.123456Z",
            "2026-11-27T20:00:00.123456789+00:00",
            "0.1234567890123 s, 1.234567891s",
            "2.3000.1026131876",
            "01936012-1234-7123-8123-123456789012",
            "Some(01936012-7abc-7123-8123-123456789012)",
            "3EB01234567890ABCDEF 3A12345678901234567F",
            "9f86d0818841234567a2feaa",
            "120363123456789012@g.us",
            "whatsapp_messages_20261127",
        ];
        for text in cases {
            assert!(
                matches!(mask(text), Cow::Borrowed(kept) if kept == text),
                "{text}"
            );
            assert_eq!(mask_json(text), text);
        }
    }

    #[test]
    fn numbers_of_json_stay_and_those_in_its_strings_do_not() {
        let line = r#"{"a":12345678,"b":-1234567.5,"c_":1234567890,"d":":5511999999999","e":"5511999999999","f":"{\"to\":5511999999999}"}"#;
        let masked = r#"{"a":12345678,"b":-1234567.5,"c_":1234567890,"d":":5511*******99","e":"5511*******99","f":"{\"to\":5511*******99}"}"#;
        assert_eq!(mask_json(line), masked);
    }

    #[test]
    fn a_long_line_of_a_stranger_takes_no_longer_than_others() {
        let line = "1234567a".repeat(1 << 17);
        assert_eq!(mask(&line), line);
    }
}
