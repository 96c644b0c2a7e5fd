//! Headers that a client wants sent with its deliveries, such as a token of its own.

use std::fmt;

use domain::webhook::Headers;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::openapi::schema::schema;

/// Headers that one webhook may have.
const MOST: usize = 20;
/// Bytes of a name, of a value, and of all of them: more is refused by many a server.
const LONGEST_NAME: usize = 128;
const LONGEST_VALUE: usize = 4096;
const ALL: usize = 8192;

/// What is ours to say, or the connection's.
const RESERVED: [&str; 12] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];
const RESERVED_BEGINNINGS: [&str; 3] = ["proxy-", "webhook-", "x-webhook-"];

/// Names with their values. An empty one is the same as none.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CustomHeaders(pub(crate) Headers);

schema! { CustomHeaders, json!({
    "type": "object",
    "description": "Sent with each delivery, and shown masked. The names of those that are Recado's or the \
                    connection's cannot be set. At most 8,192 bytes in all.",
    "maxProperties": MOST,
    "propertyNames": {
        "pattern": "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$",
        "maxLength": LONGEST_NAME,
        "not": {"anyOf": reserved()},
    },
    "additionalProperties": {
        "type": "string",
        "pattern": "^([!-~]([ -~\\t]*[!-~])?)?$",
        "maxLength": LONGEST_VALUE,
    },
    "examples": [{"X-Api-Key": "3f9c"}],
}) }

/// The names that cannot be set, in whatever case.
fn reserved() -> Vec<Value> {
    let any_case = |name: &str| -> String {
        let both = |letter: char| match letter {
            '-' => "-".to_owned(),
            letter => format!("[{letter}{}]", letter.to_ascii_uppercase()),
        };
        name.chars().map(both).collect()
    };
    let whole = RESERVED.iter().map(|name| format!("^{}$", any_case(name)));
    let beginnings = RESERVED_BEGINNINGS.iter();
    let beginnings = beginnings.map(|beginning| format!("^{}", any_case(beginning)));
    let patterns = whole.chain(beginnings);
    patterns
        .map(|pattern| json!({"pattern": pattern}))
        .collect()
}

impl fmt::Debug for CustomHeaders {
    /// Without the values, which are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for CustomHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Pairs(pairs) = Pairs::deserialize(deserializer)?;
        check(&pairs).map_err(de::Error::custom)?;
        Ok(Self(pairs.into_iter().collect()))
    }
}

/// In the order of the request, and with names that stand twice.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor).map(Self)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Vec<(String, String)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object of names and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = members.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

/// The problem names a header, and never a value.
fn check(pairs: &[(String, String)]) -> Result<(), String> {
    if pairs.len() > MOST {
        return Err(format!("must not have more than {MOST} headers"));
    }
    for (index, (name, value)) in pairs.iter().enumerate() {
        check_name(name)?;
        let same = |(other, _): &(String, String)| other.eq_ignore_ascii_case(name);
        if pairs[..index].iter().any(same) {
            return Err(format!("has the header {name:?} twice"));
        }
        check_value(value).map_err(|problem| format!("the value of {name:?} {problem}"))?;
    }
    let bytes: usize = pairs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    match bytes > ALL {
        true => Err(format!("must not have more than {ALL} bytes in all")),
        false => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_token = !name.is_empty() && name.bytes().all(is_token_byte);
    if !is_token || name.len() > LONGEST_NAME {
        // It may be long, or hold anything.
        let shown: String = name.chars().take(LONGEST_NAME).collect();
        return Err(format!("{shown:?} is not the name of a header"));
    }
    let lower = name.to_ascii_lowercase();
    let reserved = RESERVED.contains(&lower.as_str())
        || RESERVED_BEGINNINGS
            .iter()
            .any(|beginning| lower.starts_with(beginning));
    match reserved {
        true => Err(format!("the header {name:?} cannot be set")),
        false => Ok(()),
    }
}

/// RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn check_value(value: &str) -> Result<(), String> {
    let is_sendable = |byte: u8| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t';
    if !value.bytes().all(is_sendable) {
        return Err("must hold visible ASCII characters, spaces and tabs only".to_owned());
    }
    if value.trim_ascii() != value {
        return Err("must not begin or end with a space: no receiver would see it".to_owned());
    }
    match value.len() > LONGEST_VALUE {
        true => Err(format!("must not have more than {LONGEST_VALUE} bytes")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_str, from_value, json};

    use super::*;

    fn refusal(value: Value) -> String {
        let refused = from_value::<CustomHeaders>(value.clone());
        refused
            .map_err(|error| error.to_string())
            .expect_err(&value.to_string())
    }

    #[test]
    fn names_and_values_that_can_be_sent_are_kept_as_they_were_written() {
        let given = json!({"Authorization": "Bearer a\tb c", "X-Empty": "", "User-Agent": "me/1"});
        let headers: CustomHeaders = from_value(given.clone()).unwrap();
        assert_eq!(json!(headers.0), given);
        assert!(from_value::<CustomHeaders>(json!({})).unwrap().0.is_empty());
    }

    #[test]
    fn what_is_no_name_or_is_not_the_clients_to_set_is_refused() {
        for name in [
            "",
            "a b",
            "a:",
            "a\r\nb",
            "é",
            "Content-Type",
            "content-length",
            "HOST",
            "Connection",
            "Transfer-Encoding",
            "TE",
            "Trailer",
            "Upgrade",
            "Expect",
            "Keep-Alive",
            "Proxy-Authorization",
            "proxy-anything",
            "webhook-id",
            "Webhook-Signature",
            "X-Webhook-Event-ID",
            "x-webhook-anything",
        ] {
            let refusal = refusal(json!({name: "value"}));
            assert!(refusal.contains(&format!("{name:?}")), "{refusal}");
        }
        refusal(json!({"x".repeat(LONGEST_NAME + 1): "value"}));
    }

    #[test]
    fn values_that_would_break_out_of_their_line_are_refused_and_not_shown() {
        for value in [
            "hunter2\r\nHost: x",
            "hunter2\0",
            "hunter2 é",
            " hunter2",
            "hunter2\t",
        ] {
            let refusal = refusal(json!({"X-Token": value}));
            assert!(
                refusal.contains("X-Token") && !refusal.contains("hunter2"),
                "{refusal}"
            );
        }
        for value in [json!(null), json!(["a"]), json!({})] {
            refusal(json!({"X-Token": value}));
        }
    }

    #[test]
    fn headers_are_bounded_in_number_and_size_and_each_stands_once() {
        let many = |count: usize, value: &str| -> Value {
            let headers = (0..count).map(|n| (format!("X-{n}"), json!(value)));
            Value::Object(headers.collect())
        };
        assert!(from_value::<CustomHeaders>(many(MOST, "value")).is_ok());
        refusal(many(MOST + 1, "value"));
        refusal(many(3, &"x".repeat(4000)));
        refusal(many(1, &"x".repeat(LONGEST_VALUE + 1)));
        for text in [r#"{"X-A":"1","x-a":"2"}"#, r#"{"X-A":"1","X-A":"1"}"#] {
            assert!(
                from_str::<CustomHeaders>(text)
                    .unwrap_err()
                    .to_string()
                    .contains("twice")
            );
        }
    }

    #[test]
    fn values_are_in_no_log() {
        let headers: CustomHeaders = from_value(json!({"X-Token": "hunter2"})).unwrap();
        assert_eq!(format!("{headers:?}"), r#"{"X-Token"}"#);
    }
}
