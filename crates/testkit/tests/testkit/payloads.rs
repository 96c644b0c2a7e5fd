//! The published examples against the published schema.

use std::collections::HashSet;

use serde_json::{Value, json};
use testkit::Payloads;
use testkit::payload::SCHEMA;

const PAGE: &str = include_str!("../../../../docs/PAYLOADS.md");

/// The page's examples: the first is whole, each other one says what differs from it. Metadata of what is
/// no message stands alone.
fn examples() -> Vec<Value> {
    let blocks = PAGE.split("```json\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    let parsed: Vec<Value> = blocks
        .map(|block| serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}")))
        .collect();
    parsed
        .iter()
        .map(|example| over(&parsed[0], example))
        .collect()
}

fn over(whole: &Value, example: &Value) -> Value {
    let mut body = whole.clone();
    for (name, value) in example.as_object().unwrap() {
        if name == "metadata" && value.get("v").is_none() {
            let metadata = body["metadata"].as_object_mut().unwrap();
            metadata.extend(value.as_object().unwrap().clone());
        } else {
            body[name] = value.clone();
        }
    }
    body
}

#[test]
fn every_example_on_the_page_is_as_the_schema_says() {
    let payloads = Payloads::default();
    let examples = examples();
    for example in &examples {
        let checked = payloads.check_value(example);
        checked.unwrap_or_else(|why| panic!("{example}: {why}"));
    }
    payloads
        .check_value(&json!({ "events": examples }))
        .unwrap();
}

#[test]
fn every_type_and_every_family_of_events_has_an_example() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let examples = examples();
    let shown = |field: &str| -> HashSet<String> {
        let of_field = examples
            .iter()
            .map(|example| example[field].as_str().unwrap());
        of_field.map(str::to_owned).collect()
    };
    let known = schema["$defs"]["message"]["properties"]["type"]["enum"].as_array();
    let types = shown("type");
    for known in known.unwrap() {
        assert!(types.contains(known.as_str().unwrap()), "{known}");
    }
    let known = schema["$defs"]["event"]["properties"]["event"]["enum"].as_array();
    for known in known.unwrap() {
        let known = known.as_str().unwrap();
        let later = ["message.receipt", "call.offer", "group.update"].contains(&known);
        assert!(later || PAGE.contains(&format!("`{known}`")), "{known}");
    }
}
