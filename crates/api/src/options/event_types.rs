use domain::event_type::EventFilter;
use serde::{Deserialize, Deserializer, de};

/// Patterns that one webhook may list.
const EVENT_TYPES: usize = 50;

/// Which events a webhook wants: known patterns, each once.
#[derive(Debug, Clone)]
pub(crate) struct EventTypes(pub(crate) Vec<String>);

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
