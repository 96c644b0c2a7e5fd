//! The options of a webhook as a request gives them: each a type that only a good value makes.

use domain::event_type::EventFilter;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

/// Attempts in all.
const MAX_RETRIES: std::ops::RangeInclusive<i64> = 1..=100;
/// Patterns that one webhook may list.
const EVENT_TYPES: usize = 50;
/// Bytes of the written metadata.
const METADATA: usize = 16 * 1024;

#[derive(Debug, Clone, Copy)]
pub(crate) struct MaxRetries(pub(crate) i32);

#[derive(Debug, Clone)]
pub(crate) struct EventTypes(pub(crate) Vec<String>);

#[derive(Debug, Clone)]
pub(crate) struct Metadata(pub(crate) Value);

impl<'de> Deserialize<'de> for MaxRetries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        i32::try_from(number)
            .ok()
            .filter(|_| MAX_RETRIES.contains(&number))
            .map(Self)
            .ok_or_else(|| {
                let (least, most) = (MAX_RETRIES.start(), MAX_RETRIES.end());
                de::Error::custom(format_args!("must be from {least} to {most}"))
            })
    }
}

impl<'de> Deserialize<'de> for EventTypes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        if !(1..=EVENT_TYPES).contains(&texts.len()) {
            let problem = format_args!("must have from 1 to {EVENT_TYPES} items");
            return Err(de::Error::custom(problem));
        }
        let mut filters: Vec<String> = Vec::new();
        for text in texts {
            let filter: EventFilter = text.parse().map_err(de::Error::custom)?;
            if !filters.iter().any(|known| known == filter.as_str()) {
                filters.push(filter.as_str().to_owned());
            }
        }
        Ok(Self(filters))
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::Object(Map::deserialize(deserializer)?);
        if holds_nul(&object) {
            return Err(de::Error::custom("must not hold the character U+0000"));
        }
        if object.to_string().len() > METADATA {
            let problem = format_args!("must not have more than {METADATA} bytes as JSON");
            return Err(de::Error::custom(problem));
        }
        Ok(Self(object))
    }
}

/// PostgreSQL's `jsonb` cannot store it.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn retries_are_bounded() {
        assert_eq!(from_value::<MaxRetries>(json!(100)).unwrap().0, 100);
        for value in [
            json!(0),
            json!(-1),
            json!(101),
            json!(u64::MAX),
            json!(1.5),
            json!("3"),
        ] {
            assert!(from_value::<MaxRetries>(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn event_types_are_known_patterns_each_once() {
        let types: EventTypes = from_value(json!(["message.*", "test", "message.*"])).unwrap();
        assert_eq!(types.0, ["message.*", "test"]);
        for value in [
            json!([]),
            json!(["messages"]),
            json!("message"),
            json!(vec!["*"; 51]),
        ] {
            assert!(from_value::<EventTypes>(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn metadata_is_an_object_that_can_be_stored() {
        from_value::<Metadata>(json!({"a": {"b": [1, null]}})).unwrap();
        let long = "x".repeat(METADATA);
        for value in [
            json!([]),
            json!("x"),
            json!({"a": ["\0"]}),
            json!({"\0": 1}),
            json!({"a": long}),
        ] {
            assert!(from_value::<Metadata>(value.clone()).is_err());
        }
    }
}
