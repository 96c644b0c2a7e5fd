//! How much a stranger's message may put into `metadata`. What is longer is cut, and said to be.
//!
//! The limits are far above what a phone sends; they keep a row and a delivery small whatever was sent.

use serde_json::{Map, Value};

/// Bytes of one text.
const TEXT: usize = 4096;
/// Items of one list: a group has no more members.
pub(super) const ITEMS: usize = 1024;
/// Bytes of all texts under one name.
const TEXTS: usize = 32 * 1024;

/// Cuts what is too long, leaves out what is not known (`null`), and makes all texts storable. The names of
/// what was cut, such as `quoted.text`, are added as `cut`.
pub(super) fn bound(metadata: &mut Map<String, Value>) {
    let mut cut = Vec::new();
    metadata.retain(|_, value| !value.is_null());
    for (name, value) in metadata.iter_mut() {
        let mut cutter = Cutter {
            left: TEXTS,
            cut: &mut cut,
        };
        cutter.value(value, name);
    }
    if !cut.is_empty() {
        metadata.insert("cut".to_owned(), cut.into());
    }
}

struct Cutter<'a> {
    left: usize,
    cut: &'a mut Vec<String>,
}

impl Cutter<'_> {
    /// Recurses as deep as the structures of this module's neighbours, never as deep as a message.
    fn value(&mut self, value: &mut Value, name: &str) {
        match value {
            Value::String(text) => self.text(text, name),
            Value::Array(items) => self.list(items, name),
            Value::Object(fields) => {
                fields.retain(|_, value| !value.is_null());
                for (field, value) in fields {
                    self.value(value, &format!("{name}.{field}"));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&mut self, text: &mut String, name: &str) {
        let room = self.left.min(TEXT);
        if text.len() > room {
            text.truncate(text.floor_char_boundary(room));
            self.note(name);
        }
        if text.contains('\0') {
            *text = domain::message::storable(text);
        }
        self.left -= text.len().min(self.left);
    }

    fn list(&mut self, items: &mut Vec<Value>, name: &str) {
        let mut kept = 0;
        for item in items.iter_mut().take(ITEMS) {
            if self.left == 0 {
                break;
            }
            self.value(item, name);
            kept += 1;
        }
        if kept < items.len() {
            items.truncate(kept);
            self.note(name);
        }
    }

    fn note(&mut self, name: &str) {
        if !self.cut.iter().any(|known| known == name) {
            self.cut.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bounded(value: Value) -> Value {
        let Value::Object(mut map) = value else {
            panic!("metadata is an object");
        };
        bound(&mut map);
        Value::Object(map)
    }

    #[test]
    fn what_fits_stays_as_it_is_and_what_is_unknown_is_left_out() {
        let kept = bounded(json!({"a": {"b": null, "c": ["x"]}, "d": null, "v": 1}));
        assert_eq!(kept, json!({"a": {"c": ["x"]}, "v": 1}));
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_named() {
        let long = "ã".repeat(3000);
        let cut = bounded(json!({"quoted": {"text": long, "type": "text"}}));
        assert_eq!(cut["quoted"]["text"].as_str().unwrap().len(), TEXT);
        assert_eq!(cut["cut"], json!(["quoted.text"]));
        let odd = bounded(json!({"a": format!("x{}", "ã".repeat(3000))}));
        assert_eq!(odd["a"].as_str().unwrap().len(), TEXT - 1);
    }

    #[test]
    fn a_long_list_is_cut_and_so_is_one_of_long_texts() {
        let many = bounded(json!({"mentions": vec!["1"; 5000]}));
        assert_eq!(many["mentions"].as_array().unwrap().len(), ITEMS);
        assert_eq!(many["cut"], json!(["mentions"]));
        let cards: Vec<Value> = vec![json!({"vcard": "x".repeat(5000)}); 100];
        let big = bounded(json!({"contacts": cards}));
        assert_eq!(big["contacts"].as_array().unwrap().len(), TEXTS / TEXT);
        assert_eq!(big["cut"], json!(["contacts.vcard", "contacts"]));
        assert!(big.to_string().len() < 40_000);
    }

    #[test]
    fn a_nul_is_made_storable() {
        assert_eq!(bounded(json!({"a": "x\0y"}))["a"], "x\u{fffd}y");
    }
}
