//! What handlers are given of a request, checked: a JSON body, an id of the path, a query.

mod body;
mod idempotency;
mod last_event_id;
mod path;
mod query;

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

pub(crate) use body::{Body, Bounds, JSON, OptionalBody, read};
pub(crate) use idempotency::IdempotencyKey;
pub(crate) use last_event_id::LastEventId;
pub(crate) use path::Id;
pub(crate) use query::Query;

use crate::error::ApiError;

/// For `deserialize_with`: a string that a value type reads.
pub(crate) fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(de::Error::custom)
}

/// The same for what may be missing, or null. Needs `default` beside it.
pub(crate) fn parsed_option<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(de::Error::custom))
        .transpose()
}

/// Blames the field that serde was at.
fn blamed(path: &serde_path_to_error::Path, message: &str) -> Option<ApiError> {
    let path = path.to_string();
    let at = Some(path.as_str()).filter(|path| *path != ".");
    // These the message alone knows by name: the path ends at what holds them.
    let member = |kind| {
        let name = message.strip_prefix(kind)?.strip_prefix(" field `")?;
        name.strip_suffix('`')
    };
    let named = [("missing", "is required"), ("duplicate", "stands twice")]
        .into_iter()
        .find_map(|(kind, detail)| Some((member(kind)?, detail)));
    match (named, at) {
        (Some((name, detail)), Some(at)) if at != name => {
            Some(ApiError::field(format!("{at}.{name}"), detail))
        }
        (Some((name, detail)), _) => Some(ApiError::field(name, detail)),
        (None, Some(at)) => Some(ApiError::field(at, message)),
        (None, None) => None,
    }
}
