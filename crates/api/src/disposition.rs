//! What strangers call their files, as headers. Pure.

use std::fmt::Write;

const UNKNOWN: &str = "application/octet-stream";
/// Characters of a name.
const LONGEST: usize = 180;

/// The type that was said, if it is one.
pub(crate) fn content_type(said: Option<&str>) -> &str {
    said.filter(|text| is_media_type(text)).unwrap_or(UNKNOWN)
}

/// `type/subtype`, and what may follow it behind a semicolon.
pub(crate) fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let is_token = |text: &str| {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
        !text.is_empty() && text.bytes().all(is_good)
    };
    let is_printable = text
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic());
    text.len() <= 255
        && is_printable
        && essence
            .split_once('/')
            .is_some_and(|(main, sub)| is_token(main) && is_token(sub))
}

/// `Content-Disposition` (RFC 6266): the name twice, in ASCII for the old, and whole (RFC 8187).
pub(crate) fn attachment(name: &str) -> String {
    let safe = |letter: char| match letter {
        '/' | '\\' => '_',
        letter => letter,
    };
    let name: String = name
        .chars()
        .filter(|letter| !letter.is_control() && !is_invisible(*letter))
        .map(safe)
        .take(LONGEST)
        .collect();
    let name = name.trim_matches(['.', ' ']);
    let name = if name.is_empty() { "file" } else { name };
    let plain: String = name
        .chars()
        .map(|letter| match letter {
            ' ' | '.' | '-' | '_' | '(' | ')' => letter,
            letter if letter.is_ascii_alphanumeric() => letter,
            _ => '_',
        })
        .collect();
    let mut encoded = String::new();
    for byte in name.bytes() {
        match byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            true => encoded.push(char::from(byte)),
            false => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

/// What turns the direction of writing, and makes `gpj.exe` of `exe.jpg`.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_media_type_is_bytes() {
        for good in [
            "image/jpeg",
            "audio/ogg; codecs=opus",
            "application/vnd.ms-excel",
            "image/svg+xml",
        ] {
            assert_eq!(content_type(Some(good)), good);
        }
        for bad in [
            "",
            "image",
            "image/",
            "/jpeg",
            "image/jpeg\r\nSet-Cookie: a=b",
            "image/jpeg; a=\n",
            "image/jp eg",
            "imagé/jpeg",
            "image/jpeg; a=é",
            "text/html,image/jpeg",
        ] {
            assert_eq!(content_type(Some(bad)), UNKNOWN, "{bad:?}");
        }
        assert_eq!(content_type(None), UNKNOWN);
    }

    #[test]
    fn a_name_stays_a_name_whatever_is_in_it() {
        for (name, plain, encoded) in [
            ("contract.pdf", "contract.pdf", "contract.pdf"),
            ("Olá 1.pdf", "Ol_ 1.pdf", "Ol%C3%A1%201.pdf"),
            ("../../etc/passwd", "_.._etc_passwd", "_.._etc_passwd"),
            ("a\"; x=\"b", "a__ x=_b", "a%22%3B%20x%3D%22b"),
            ("a\r\nB: c", "aB_ c", "aB%3A%20c"),
            ("exe\u{202e}gpj.", "exegpj", "exegpj"),
            ("..", "file", "file"),
            ("", "file", "file"),
        ] {
            let plain = plain.replace('=', "_");
            assert_eq!(
                attachment(name),
                format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"),
                "{name:?}"
            );
        }
        assert!(attachment(&"é".repeat(5000)).len() < 2000);
    }
}
