//! A client's own notes on a webhook.

use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::openapi::schema::schema;

/// Bytes of the written metadata.
const METADATA: usize = 16 * 1024;
/// With names that begin so serde_json marks what it means for itself, also when it reads them back.
const RESERVED: &str = "$serde_json::private::";

#[derive(Debug, Clone)]
pub(crate) struct Metadata(pub(crate) Value);

schema! { Metadata, json!({
    "type": "object",
    "description": "Your own notes on it: any JSON object of at most 16 KiB, without the character U+0000.",
    "examples": [{"team": "support"}],
}) }

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
