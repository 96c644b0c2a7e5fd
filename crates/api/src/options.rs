//! The options of a webhook as a request gives them: each a type that only a good value makes.

use std::fmt;

use domain::event_type::EventFilter;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Attempts in all.
const MAX_RETRIES: std::ops::RangeInclusive<i64> = 1..=100;
/// Patterns that one webhook may list.
const EVENT_TYPES: usize = 50;
/// Bytes of the written metadata.
const METADATA: usize = 16 * 1024;
/// With names that begin so serde_json marks what it means for itself, also when it reads them back.
const RESERVED: &str = "$serde_json::private::";

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
        let Plain(object) = Plain::deserialize(deserializer)?;
        if !object.is_object() {
            return Err(de::Error::custom("must be a JSON object"));
        }
        if holds(&object, |text| text.contains('\0')) {
            return Err(de::Error::custom("must not hold the character U+0000"));
        }
        if holds(&object, |text| text.starts_with(RESERVED)) {
            let problem = format_args!("must not hold a text that begins with {RESERVED}");
            return Err(de::Error::custom(problem));
        }
        if object.to_string().len() > METADATA {
            let problem = format_args!("must not have more than {METADATA} bytes as JSON");
            return Err(de::Error::custom(problem));
        }
        Ok(Self(object))
    }
}

/// Any JSON as it is written. [`Value`] itself would read the text under a reserved name as JSON again,
/// and so as deep as the stack is not.
struct Plain(Value);

struct PlainVisitor;

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor).map(Self)
    }
}

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Plain(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Plain(value))) = members.next_entry()? {
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

/// Whether some text in it, a name or a value, is such.
fn holds(value: &Value, such: fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => such(text),
        Value::Array(items) => items.iter().any(|item| holds(item, such)),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| such(name) || holds(value, such)),
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
        let object = json!({"a": {"b": [1, -1, 0.5, null, true, "x"]}});
        assert_eq!(from_value::<Metadata>(object.clone()).unwrap().0, object);
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

    #[test]
    fn metadata_that_would_be_read_as_something_else_is_refused() {
        const RAW: &str = "$serde_json::private::RawValue";
        let refusal = |text: String| {
            let refused = serde_json::from_str::<Metadata>(&text).unwrap_err();
            refused.to_string()
        };
        for value in [json!({RAW: "7"}), json!({"a": [{RAW: "not JSON"}]})] {
            let refusal = refusal(value.to_string());
            assert!(refusal.starts_with("must not hold a text"), "{refusal}");
        }
        let mut text = "7".to_owned();
        for _ in 0..16 {
            let (open, close) = ("[".repeat(100), "]".repeat(100));
            text = format!("{open}{}{close}", json!({RAW: text}));
        }
        assert!(refusal(format!("{{\"a\":{text}}}")).starts_with("must not hold a text"));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert!(refusal(deep).starts_with("recursion limit"));
    }
}
