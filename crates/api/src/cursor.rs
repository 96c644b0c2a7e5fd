//! Where a list goes on: opaque to clients, and good for nothing but the list that it came from. It
//! names a place, not a right: the list is filtered by client all the same.

use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use domain::event::{Range, TOTAL_CAP};
use serde::{Serialize, Serializer};
use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use uuid::Uuid;

use crate::openapi::schema::verbatim;

/// What is left of a list of events, how long it was at its first page, and a mark of what it is a list of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventCursor {
    pub(crate) range: Range,
    pub(crate) total: i64,
    pub(crate) mark: [u8; 8],
}

/// Behind the one with this time of creation and id, in the list with that letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeCursor<const LIST: char>(pub(crate) (DateTime<Utc>, Uuid));

pub(crate) type WebhookCursor = TimeCursor<'w'>;
pub(crate) type DeadLetterCursor = TimeCursor<'d'>;

/// What clients see of one: which they are to give back, and not to read.
pub(crate) fn cursor() -> RefOr<Schema> {
    verbatim(json!({
        "type": "string",
        "pattern": "^[A-Za-z0-9_-]{2,}$",
        "description": "The `next_cursor` of the page before.",
    }))
}

/// The same where a list may be at its end.
pub(crate) fn next_cursor() -> RefOr<Schema> {
    verbatim(json!({
        "type": ["string", "null"],
        "pattern": "^[A-Za-z0-9_-]{2,}$",
        "description": "Where the next page begins; null at the end.",
    }))
}

pub(crate) const REFUSED: &str = "is not a cursor of this list";

fn read<const N: usize>(list: char, text: &str) -> Option<[u8; N]> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let (first, rest) = bytes.split_first()?;
    rest.try_into().ok().filter(|_| char::from(*first) == list)
}

fn write<S: Serializer>(list: char, bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = [list.to_string().as_bytes(), bytes].concat();
    serializer.serialize_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

impl FromStr for EventCursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: [u8; 32] = read('e', text).ok_or(REFUSED)?;
        let (numbers, mark) = bytes.as_chunks().0.split_at(3);
        let [after, before, total] =
            [0, 1, 2].map(|place: usize| i64::from_be_bytes(numbers[place]));
        match (0..=TOTAL_CAP).contains(&total) {
            true => Ok(Self {
                range: Range { after, before },
                total,
                mark: mark[0],
            }),
            false => Err(REFUSED),
        }
    }
}

impl Serialize for EventCursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Range { after, before } = self.range;
        let [after, before, total] = [after, before, self.total].map(i64::to_be_bytes);
        write('e', &[after, before, total, self.mark].concat(), serializer)
    }
}

impl<const LIST: char> FromStr for TimeCursor<LIST> {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: [u8; 24] = read(LIST, text).ok_or(REFUSED)?;
        let (micros, id) = bytes.split_first_chunk().ok_or(REFUSED)?;
        let created_at =
            DateTime::from_timestamp_micros(i64::from_be_bytes(*micros)).ok_or(REFUSED)?;
        let id = Uuid::from_slice(id).map_err(|_| REFUSED)?;
        Ok(Self((created_at, id)))
    }
}

impl<const LIST: char> Serialize for TimeCursor<LIST> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (created_at, id) = self.0;
        let micros = created_at.timestamp_micros().to_be_bytes();
        write(LIST, &[&micros[..], id.as_bytes()].concat(), serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(cursor: impl Serialize) -> String {
        serde_json::to_value(cursor)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        for (after, before) in [(0, 7), (i64::MIN, i64::MAX)] {
            let cursor = EventCursor {
                range: Range { after, before },
                total: 3,
                mark: *b"12345678",
            };
            assert_eq!(text(cursor).parse(), Ok(cursor));
            assert!(text(cursor).parse::<WebhookCursor>().is_err());
        }
        let created_at = DateTime::from_timestamp_micros(1_764_000_000_123_456).unwrap();
        let cursor: WebhookCursor = TimeCursor((created_at, Uuid::max()));
        assert_eq!(text(cursor).parse(), Ok(cursor));
        assert!(text(cursor).parse::<DeadLetterCursor>().is_err());
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        for text in [
            "",
            "x",
            "ZQ",
            "====",
            &text(TimeCursor::<'w'>((DateTime::UNIX_EPOCH, Uuid::nil()))),
        ] {
            assert!(text.parse::<EventCursor>().is_err(), "{text:?}");
        }
        // A time that no calendar has.
        let far = [&[b'w'][..], &i64::MAX.to_be_bytes(), &[0; 16]].concat();
        assert!(
            BASE64_URL_SAFE_NO_PAD
                .encode(far)
                .parse::<WebhookCursor>()
                .is_err()
        );
    }
}
