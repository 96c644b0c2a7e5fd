//! Holds what the service answers to what its description promises.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::Answer;

static DOCUMENT: LazyLock<Value> = LazyLock::new(api::openapi::document);

/// By the place of the schema: it takes a moment to make one.
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// Every operation: its path, its method, and what is said of it.
pub(crate) fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter();
        operations.map(|(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Of a schema in the document.
pub(crate) fn validator(document: &Value, schema: Value) -> Validator {
    let schema = json!({"allOf": [schema], "components": document["components"]});
    jsonschema::draft202012::new(&schema).unwrap_or_else(|error| panic!("{error}"))
}

/// Panics unless this is an answer that the description knows. What it knows nothing of, such as another
/// service, may answer as it likes.
pub(crate) fn check(method: &Method, path: &str, answer: &Answer) {
    let method = match *method {
        Method::HEAD => "get".to_owned(),
        _ => method.as_str().to_lowercase(),
    };
    let operation = operations(&DOCUMENT)
        .filter(|(template, of, _)| *of == method && fits(template, path))
        // `/webhooks/list` is not a webhook's id.
        .min_by_key(|(template, ..)| template.matches('{').count());
    let Some((template, _, operation)) = operation else {
        return;
    };
    // As the description says of all: a method that a path does not have.
    if answer.status == 405 {
        return;
    }
    let (status, call) = (answer.status.to_string(), format!("{method} {template}"));
    let response = match &operation["responses"][&status] {
        Value::Null => panic!("{call} does not say that it may answer {answer:?}"),
        response => resolved(response),
    };
    let essence = answer.header("content-type").split(';').next().unwrap();
    let content = &response["content"][essence];
    if answer.bytes.is_empty() || !essence.ends_with("json") {
        return;
    }
    assert!(content.is_object(), "{call}: {status} is no {essence}");
    let key = format!("{call} {status}");
    let known = VALIDATORS.lock().unwrap().get(&key).cloned();
    let validator = known.unwrap_or_else(|| {
        let made = Arc::new(validator(&DOCUMENT, content["schema"].clone()));
        let mut validators = VALIDATORS.lock().unwrap();
        Arc::clone(validators.entry(key).or_insert(made))
    });
    let body = answer.json();
    let wrong = validator.iter_errors(&body);
    let wrong: Vec<_> = wrong
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{call} {status}: {wrong:?}");
    let kind = body["type"].as_str().unwrap_or_default();
    let kinds = DOCUMENT["info"]["description"].as_str().unwrap();
    assert!(!kind.starts_with("urn:") || kinds.contains(kind), "{kind}");
}

fn resolved(response: &'static Value) -> &'static Value {
    match response["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(&reference[1..]).unwrap(),
        None => response,
    }
}

/// Whether a path is one of those that the template stands for.
fn fits(template: &str, path: &str) -> bool {
    let (mut parts, mut others) = (template.split('/'), path.split('/'));
    loop {
        match (parts.next(), others.next()) {
            (None, None) => return true,
            (Some(part), Some(other)) if part.starts_with('{') || part == other => {}
            _ => return false,
        }
    }
}
