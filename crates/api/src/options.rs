//! The options of a webhook as a request gives them: each a type that only a good value makes.
//!
//! An option that is missing stays as it is. `null` takes away one that a webhook can be without, and is
//! an error for any other.

mod batch;
mod event_types;
mod headers;
mod metadata;
mod numbers;
mod ranges;

use serde::{Deserialize, Deserializer, de};

pub(crate) use batch::Batch;
pub(crate) use event_types::EventTypes;
pub(crate) use headers::CustomHeaders;
pub(crate) use metadata::Metadata;
pub(crate) use numbers::{InlineMediaBytes, MaxInFlight, MaxRetries, RateLimit, within};
pub(crate) use ranges::IpRanges;

/// For `deserialize_with`, beside `default`: an option that cannot be null.
pub(crate) fn given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    match Option::deserialize(deserializer)? {
        None => Err(de::Error::custom("must not be null")),
        some => Ok(some),
    }
}

/// The same for an option that null takes away.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// Makes a request out of fields of its own and the options that every request about a webhook may
/// have. (`serde(flatten)` would let unknown fields through, and name none.)
macro_rules! with_options {
    ($(#[$attribute:meta])* struct $name:ident { $($own:tt)* }) => {
        $(#[$attribute])*
        #[derive(serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields, expecting = "a JSON object")]
        pub(crate) struct $name {
            $($own)*
            /// Attempts in all, until an event is given up.
            #[serde(default, deserialize_with = "crate::options::given")]
            #[schema(value_type = crate::options::MaxRetries, required = false)]
            max_retries: Option<crate::options::MaxRetries>,
            /// Which events it wants.
            #[serde(default, deserialize_with = "crate::options::given")]
            #[schema(value_type = crate::options::EventTypes, required = false)]
            event_types: Option<crate::options::EventTypes>,
            /// Your own notes on it.
            #[serde(default, deserialize_with = "crate::options::given")]
            #[schema(value_type = crate::options::Metadata, required = false)]
            metadata: Option<crate::options::Metadata>,
            /// Headers that are sent with each delivery. In a request all of them; null takes them away.
            #[serde(default, deserialize_with = "crate::options::nullable")]
            #[schema(value_type = Option<crate::options::CustomHeaders>, required = false)]
            custom_headers: Option<Option<crate::options::CustomHeaders>>,
            /// Requests a second; null: as many as there are.
            #[serde(default, deserialize_with = "crate::options::nullable")]
            #[schema(value_type = Option<crate::options::RateLimit>, required = false)]
            rate_limit_per_second: Option<Option<crate::options::RateLimit>>,
            /// Requests under way at once, for each dispatcher.
            #[serde(default, deserialize_with = "crate::options::given")]
            #[schema(value_type = crate::options::MaxInFlight, required = false)]
            max_in_flight: Option<crate::options::MaxInFlight>,
            /// Several events in one request; null: one in each.
            #[serde(default, deserialize_with = "crate::options::nullable")]
            #[schema(value_type = Option<crate::options::Batch>, required = false)]
            batch: Option<Option<crate::options::Batch>>,
            /// A chat's next message waits for the one before it.
            #[serde(default, deserialize_with = "crate::options::given")]
            #[schema(value_type = bool, required = false)]
            ordered: Option<bool>,
            /// Where the receiver's address must be.
            #[serde(default, deserialize_with = "crate::options::given")]
            #[schema(value_type = crate::options::IpRanges, required = false)]
            allowed_ip_ranges: Option<crate::options::IpRanges>,
            /// Files of up to so many bytes are in the delivery itself, as base64; 0 is none.
            #[serde(default, deserialize_with = "crate::options::given")]
            #[schema(value_type = crate::options::InlineMediaBytes, required = false)]
            inline_media_bytes: Option<crate::options::InlineMediaBytes>,
        }

        impl $name {
            /// What the options change; the headers, which are sealed for their row, are not among it.
            fn changes(&self) -> domain::webhook::Changes {
                domain::webhook::Changes {
                    max_retries: self.max_retries.map(|retries| retries.0),
                    event_types: self.event_types.as_ref().map(|types| types.0.clone()),
                    metadata: self.metadata.as_ref().map(|metadata| metadata.0.clone()),
                    rate_limit_per_second: self.rate_limit_per_second.map(|limit| limit.map(|l| l.0)),
                    max_in_flight: self.max_in_flight.map(|most| most.0),
                    batch_max_events: self.batch.map(|batch| batch.map(|b| b.max_events())),
                    batch_max_wait_ms: self.batch.map(|batch| batch.map(|b| b.max_wait_ms())),
                    ordered: self.ordered,
                    allowed_ip_ranges: self.allowed_ip_ranges.as_ref().map(|ranges| ranges.texts()),
                    inline_media_bytes: self.inline_media_bytes.map(|bytes| bytes.0),
                    ..domain::webhook::Changes::default()
                }
            }
        }
    };
}
pub(crate) use with_options;
