use std::collections::BTreeSet;

use domain::event_type::{EventFilter, EventType};
use serde::{Deserialize, Deserializer, de};
use serde_json::json;

use crate::openapi::schema::schema;

/// Patterns that one webhook may list.
const EVENT_TYPES: usize = 50;

/// Which events a webhook wants: known patterns, each once.
#[derive(Debug, Clone)]
pub(crate) struct EventTypes(pub(crate) Vec<String>);

schema! { EventTypes, json!({
    "type": "array",
    "items": {"type": "string", "enum": patterns()},
    "minItems": 1,
    "maxItems": EVENT_TYPES,
    "description": "Names of events, families of them (`message.*`, with `message` itself), or `*`.",
    "examples": [["message", "connection.*"]],
}) }

/// All patterns that cover an event.
fn patterns() -> BTreeSet<String> {
    let names = EventType::ALL.iter().map(|known| known.as_str());
    let families = names.clone().flat_map(|name| {
        let root = name.split('.').next().unwrap_or(name);
        [format!("{name}.*"), format!("{root}.*")]
    });
    let everything = std::iter::once("*".to_owned());
    let names = names.map(str::to_owned);
    names.chain(families).chain(everything).collect()
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

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

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
}
