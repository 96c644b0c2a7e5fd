//! Where an event's metadata speak of a file. They are text and stay text: what is said of the file is put
//! behind what they say of it, and every other byte is as it was. Pure.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

/// A file that an event's metadata speak of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    /// Of the message that it came with.
    pub(super) id: Uuid,
    /// Bytes of the file itself.
    pub(crate) size: u64,
    /// Where `metadata.media` ends: the place of its brace.
    end: usize,
}

impl Mention {
    /// What the metadata say; `None` where there is no file, or none that can be had.
    pub(crate) fn find(metadata: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Metadata<'a> {
            #[serde(borrow)]
            media: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Media {
            id: Uuid,
            size: u64,
        }
        let found: Metadata<'_> = serde_json::from_str(metadata).ok()?;
        let media = found.media?.get();
        let Media { id, size } = serde_json::from_str(media).ok()?;
        // It is a part of the text that it was found in.
        let start = media.as_ptr().addr() - metadata.as_ptr().addr();
        let end = start + media.strip_suffix('}')?.len();
        Some(Self { id, size, end })
    }

    /// Bytes of the file's base64.
    pub(crate) fn base64_bytes(&self) -> u64 {
        self.size.div_ceil(3).saturating_mul(4)
    }

    /// Puts the file into the metadata that it was found in.
    pub(super) fn put_file(&self, metadata: &mut String, file: &[u8]) {
        let rest = metadata.split_off(self.end);
        let more = usize::try_from(self.base64_bytes()).unwrap_or_default();
        metadata.reserve_exact(more + rest.len() + 16);
        metadata.push_str(r#","base64":""#);
        BASE64_STANDARD.encode_string(file, metadata);
        metadata.push('"');
        metadata.push_str(&rest);
    }

    /// Puts there why the file isn't: a word that needs no escaping.
    pub(super) fn put_absence(&self, metadata: &mut String, why: &str) {
        metadata.insert_str(self.end, &format!(r#","inline":"{why}""#));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "019ac1b2-7c00-8e1f-9d3a-5b6c7d8e9f00";

    fn metadata() -> String {
        format!(
            r#"{{"v":1,"quoted":{{"text":"\"media\":{{}}"}},"z":"é","media":{{"kind":"image","size":4,"id":"{ID}","caption":"}}"}},"chat":"a@g.us"}}"#
        )
    }

    #[test]
    fn a_file_stands_at_the_end_of_its_media_and_nothing_else_is_touched() {
        let mut text = metadata();
        let mention = Mention::find(&text).unwrap();
        assert_eq!(
            (
                mention.id.to_string().as_str(),
                mention.size,
                mention.base64_bytes()
            ),
            (ID, 4, 8)
        );
        mention.put_file(&mut text, &[0xff, 0xfe, 0xfd, 0xfc]);
        let expected =
            metadata().replace(r#""caption":"}""#, r#""caption":"}","base64":"//79/A==""#);
        assert_eq!(text, expected);
    }

    #[test]
    fn so_does_why_there_is_none() {
        let mut text = metadata();
        let mention = Mention::find(&text).unwrap();
        mention.put_absence(&mut text, "gone");
        let expected = metadata().replace(r#""caption":"}""#, r#""caption":"}","inline":"gone""#);
        assert_eq!(text, expected);
    }

    #[test]
    fn metadata_without_a_file_that_can_be_had_speak_of_none() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"v":1,"chat":"a@g.us"}"#,
            r#"{"media":null}"#,
            r#"{"media":"id"}"#,
            r#"{"media":["019ac1b2-7c00-8e1f-9d3a-5b6c7d8e9f00",4]}"#,
            r#"{"media":{"kind":"image","size":4}}"#,
            r#"{"media":{"id":"019ac1b2-7c00-8e1f-9d3a-5b6c7d8e9f00"}}"#,
            r#"{"media":{"id":"7","size":4}}"#,
            r#"{"edit":{"media":{"id":"019ac1b2-7c00-8e1f-9d3a-5b6c7d8e9f00","size":4}}}"#,
        ] {
            assert_eq!(Mention::find(text), None, "{text}");
        }
    }
}
