//! What a delivery must look like: `docs/payload.schema.json`, which is published for clients.

use jsonschema::Validator;
use serde_json::{Value, json};

/// The published schema.
pub const SCHEMA: &str = include_str!("../../../docs/payload.schema.json");

/// Says of a body whether it is what the schema promises.
#[derive(Debug)]
pub struct Payloads {
    any: Validator,
    /// For one event alone: what is wrong with it can be said better.
    event: Validator,
}

/// Characters of an explanation: the body may be in it.
const LONGEST: usize = 800;

impl Default for Payloads {
    fn default() -> Self {
        let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
        let event = json!({ "$defs": schema["$defs"], "$ref": "#/$defs/event" });
        let validator = |schema: &Value| {
            jsonschema::draft202012::new(schema)
                .unwrap_or_else(|error| panic!("docs/payload.schema.json: {error}"))
        };
        Self {
            any: validator(&schema),
            event: validator(&event),
        }
    }
}

impl Payloads {
    /// `Err` says why this is no body of a delivery.
    pub fn check(&self, body: &[u8]) -> Result<(), String> {
        let value = serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
        self.check_value(&value)
    }

    /// The same of a body that is read already.
    pub fn check_value(&self, body: &Value) -> Result<(), String> {
        if self.any.is_valid(body) {
            return Ok(());
        }
        let one = std::slice::from_ref(body);
        let events = body["events"].as_array().map_or(one, Vec::as_slice);
        let wrong = events
            .iter()
            .flat_map(|event| self.event.iter_errors(event));
        let wrong = wrong.map(|error| format!("{}: {error}", error.instance_path()));
        let mut why: String = wrong.collect::<Vec<_>>().join("; ");
        if why.is_empty() {
            why.push_str("a batch is one list of events, and nothing beside it");
        }
        why.truncate(why.floor_char_boundary(LONGEST));
        Err(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Value {
        json!({
            "client_id": 1, "message_id": "3EB0", "from": "5511999999999", "to": "5511888888888",
            "timestamp": "2026-11-23T12:00:00.000Z", "type": "text", "content": "Olá!",
            "metadata": {"v": 1, "chat": "5511999999999@s.whatsapp.net"}, "event": "message",
            "event_id": "0192f0c1-2d3e-8a4b-9c5d-6e7f80910a1b",
            "connection_id": "7f8d6c1e-5b4a-4c3d-9e2f-1a0b9c8d7e6f",
        })
    }

    fn why(body: &Value) -> String {
        Payloads::default().check_value(body).unwrap_err()
    }

    #[test]
    fn the_schema_is_a_schema_of_its_draft() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        assert!(jsonschema::draft202012::meta::is_valid(&schema));
    }

    #[test]
    fn an_event_is_valid_and_so_is_a_batch_of_them() {
        let payloads = Payloads::default();
        payloads.check(text().to_string().as_bytes()).unwrap();
        let batch = json!({ "events": [text(), text()] });
        payloads.check_value(&batch).unwrap();
    }

    #[test]
    fn what_is_missing_unknown_or_of_another_type_is_said() {
        let mut body = text();
        body.as_object_mut().unwrap().remove("to");
        assert!(why(&body).contains("\"to\" is a required property"));

        let mut body = text();
        body["colour"] = 1.into();
        assert!(why(&body).contains("'colour'"));

        let mut body = text();
        body["metadata"]["media_key"] = "AAAA".into();
        assert!(why(&json!({ "events": [text(), body] })).contains("'media_key'"));

        let mut body = text();
        body["type"] = "image".into();
        assert!(why(&body).contains("\"media\" is a required property"));

        let mut body = text();
        body["type"] = "reaction".into();
        assert!(why(&body).contains("/type"));

        let batch = json!({ "events": [text()], "more": 1 });
        assert!(why(&batch).contains("nothing beside it"));
        assert!(Payloads::default().check(b"<html>").is_err());
    }
}
