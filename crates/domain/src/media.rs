//! A message's file at WhatsApp: what it takes to fetch and to decrypt it. It stands in the message's row,
//! sealed, and in no metadata: who has these few bytes has the file.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use diesel::prelude::*;
use diesel::sql_types::{Binary, Integer, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::keyring::{Keyring, SealError};
use crate::sealed::MESSAGE_MEDIA;
use crate::statement::Statement;

/// What servers say of a file that they know nothing of.
const UNSAID: &str = "application/octet-stream";
const UNSAID_TOO: &str = "binary/octet-stream";

/// Each is encrypted under keys of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Image,
    Video,
    Audio,
    Document,
    Sticker,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Document => "document",
            Self::Sticker => "sticker",
        }
    }

    /// What it is when nobody says.
    pub const fn usual(self) -> &'static str {
        match self {
            Self::Image => "image/jpeg",
            Self::Video => "video/mp4",
            Self::Audio => "audio/ogg; codecs=opus",
            Self::Document => UNSAID,
            Self::Sticker => "image/webp",
        }
    }

    /// The media type of a file of which this one was said; `None` when it is of another kind. What phones
    /// show has to be what they can show, and a page that says why there is no picture is none.
    pub fn media_type(self, said: Option<&str>) -> Option<&str> {
        let Some(said) = said else {
            return Some(self.usual());
        };
        let main = match self {
            Self::Document | Self::Sticker => return Some(said),
            Self::Image | Self::Video | Self::Audio => self.as_str(),
        };
        let essence = said.split(';').next().unwrap_or_default().trim();
        match essence.split_once('/') {
            Some((said_main, _)) if said_main.eq_ignore_ascii_case(main) => Some(said),
            _ if [UNSAID, UNSAID_TOO]
                .iter()
                .any(|unsaid| essence.eq_ignore_ascii_case(unsaid)) =>
            {
                Some(self.usual())
            }
            _ => None,
        }
    }

    /// What WhatsApp derives the file's keys for.
    pub const fn key_info(self) -> &'static str {
        match self {
            Self::Image | Self::Sticker => "WhatsApp Image Keys",
            Self::Video => "WhatsApp Video Keys",
            Self::Audio => "WhatsApp Audio Keys",
            Self::Document => "WhatsApp Document Keys",
        }
    }
}

/// Everything about a file that its sender said, and that it can't be had without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub kind: Kind,
    /// Where it is at the media host, as its sender said: not to be trusted.
    pub direct_path: String,
    pub media_key: Bytes32,
    /// Of what the media host has.
    pub file_enc_sha256: Bytes32,
    /// Of the file itself.
    pub file_sha256: Bytes32,
    /// Bytes of the file itself.
    pub size: u64,
    pub mimetype: Option<String>,
    pub file_name: Option<String>,
}

impl File {
    /// Seals it for a message's row.
    pub fn seal(&self, keyring: &Keyring, message: Uuid) -> Vec<u8> {
        let text = serde_json::to_vec(self).expect("texts and numbers can be written as JSON");
        MESSAGE_MEDIA.seal(keyring, &message.to_string(), &Zeroizing::new(text))
    }

    /// Opens what stands in a message's row.
    pub fn open(keyring: &Keyring, message: Uuid, sealed: &[u8]) -> Result<Self, SealError> {
        let opened = MESSAGE_MEDIA.open(keyring, &message.to_string(), sealed)?;
        serde_json::from_slice(&Zeroizing::new(opened)).map_err(|_| SealError::Form)
    }

    /// What stands in the row of a client's message, sealed; `None` as well where it has no file.
    pub async fn find_sealed(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        message: Uuid,
    ) -> QueryResult<Option<Vec<u8>>> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Binary)]
            media: Vec<u8>,
        }
        let row: Option<Row> = Statement::new(
            "SELECT media FROM whatsapp_messages
             WHERE id = ? AND client_id = ? AND media IS NOT NULL",
        )
        .bind::<SqlUuid, _>(message)
        .bind::<Integer, _>(client_id)
        .get_result(conn)
        .await
        .optional()?;
        Ok(row.map(|row| row.media))
    }
}

/// A key or a hash, which no log shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bytes32(pub [u8; 32]);

impl TryFrom<&[u8]> for Bytes32 {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl fmt::Debug for Bytes32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[32 bytes]")
    }
}

impl Serialize for Bytes32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(de::Error::custom)?;
        Self::try_from(bytes.as_slice()).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        Keyring::parse("k:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap()
    }

    fn file() -> File {
        File {
            kind: Kind::Document,
            direct_path: "/v/t62/a?b=c".to_owned(),
            media_key: Bytes32([1; 32]),
            file_enc_sha256: Bytes32([2; 32]),
            file_sha256: Bytes32([3; 32]),
            size: 12_345,
            mimetype: Some("application/pdf".to_owned()),
            file_name: None,
        }
    }

    #[test]
    fn a_file_that_is_shown_has_a_type_of_its_kind_and_an_unsaid_one_the_usual() {
        for (kind, said, expected) in [
            (Kind::Image, None, Some("image/jpeg")),
            (Kind::Image, Some("Image/PNG"), Some("Image/PNG")),
            (
                Kind::Image,
                Some("application/octet-stream"),
                Some("image/jpeg"),
            ),
            (Kind::Video, Some("binary/octet-stream"), Some("video/mp4")),
            (
                Kind::Audio,
                Some("audio/ogg; codecs=opus"),
                Some("audio/ogg; codecs=opus"),
            ),
            (Kind::Image, Some("text/html; charset=utf-8"), None),
            (Kind::Video, Some("image/png"), None),
            (Kind::Audio, Some("audio"), None),
            (Kind::Document, Some("text/html"), Some("text/html")),
            (Kind::Document, None, Some("application/octet-stream")),
        ] {
            assert_eq!(kind.media_type(said), expected, "{kind:?} {said:?}");
        }
    }

    #[test]
    fn what_is_sealed_for_a_message_opens_for_that_message_alone() {
        let (message, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let sealed = file().seal(&keyring(), message);
        assert_eq!(File::open(&keyring(), message, &sealed).unwrap(), file());
        let refused = File::open(&keyring(), other, &sealed);
        assert!(matches!(refused, Err(SealError::Rejected)));
    }

    #[test]
    fn a_log_shows_no_keys() {
        let shown = format!("{:?}", file());
        assert!(!shown.contains("1, 1"), "{shown}");
        assert!(shown.contains("[32 bytes]"));
    }
}
