//! The API's description: `docs/openapi.json` is what the code says of itself, names every route, and holds
//! together. What the service answers in all the other tests is held to it, too (`described`).

use std::collections::{BTreeMap, BTreeSet};
use std::{env, fs};

use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::described;
use crate::world::{Answer, Api, NUMBER};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
const ROUTES: &str = include_str!("../../src/routes.rs");

/// In one order, whatever the build's features make of JSON objects.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.into_iter().collect();
            let members = members
                .into_iter()
                .map(|(name, member)| (name, sorted(member)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        value => value,
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "tests have no configuration but this variable"
)]
fn the_file_is_what_the_code_says() {
    let document = sorted(api::openapi::document());
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    if env::var_os("RECADO_REWRITE").is_some() {
        return fs::write(FILE, text).unwrap();
    }
    assert!(
        fs::read_to_string(FILE).unwrap() == text,
        "docs/openapi.json is old: RECADO_REWRITE=1 cargo test -p api --test it openapi"
    );
}

/// Every path of `routes.rs`, with the scope that it is in.
fn routes() -> BTreeSet<String> {
    let (outside, inside) = ROUTES.split_once(r#"web::scope("/api")"#).unwrap();
    let paths = |text: &str, scope: &str| -> Vec<String> {
        let calls = text.split(".service(at(").skip(1);
        let path = |call: &str| call.split('"').nth(1).unwrap().to_owned();
        calls.map(|call| format!("{scope}{}", path(call))).collect()
    };
    let all = paths(outside, "").into_iter().chain(paths(inside, "/api"));
    all.collect()
}

#[tokio::test]
async fn every_route_has_an_operation_and_every_operation_a_route() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let document = api::openapi::document();
    let described = document["paths"].as_object().unwrap();
    let mut there = BTreeMap::new();
    // Of what the page consists is described nowhere.
    for route in routes().into_iter().filter(|route| route != "/docs/{file}") {
        let strange = Method::from_bytes(b"BREW").unwrap();
        let answer = Answer::of(acme.request(strange, &route)).await;
        answer.problem(405);
        let methods = answer.header("allow").split(", ");
        let methods = methods.filter(|method| *method != "HEAD");
        there.insert(
            route,
            methods.map(str::to_lowercase).collect::<BTreeSet<_>>(),
        );
    }
    let described = described.iter().map(|(path, item)| {
        let methods = item.as_object().unwrap().keys().cloned();
        (path.clone(), methods.collect::<BTreeSet<_>>())
    });
    assert_eq!(described.collect::<BTreeMap<_, _>>(), there);
}

#[test]
fn every_operation_has_a_name_of_its_own_and_says_what_it_does() {
    let document = api::openapi::document();
    let mut names = BTreeSet::new();
    for (path, method, operation) in described::operations(&document) {
        let text = |member: &str| operation[member].as_str().unwrap_or_default();
        assert!(
            names.insert(text("operationId").to_owned()),
            "{method} {path}"
        );
        assert!(!text("summary").is_empty(), "{method} {path}");
        assert_eq!(operation["tags"].as_array().unwrap().len(), 1, "{path}");
    }
}

/// Every example that stands beside a schema, with that schema.
fn examples(value: &Value, found: &mut Vec<(Value, Value)>) {
    if let Some(schema) = value.get("schema") {
        let several = value["examples"].as_object();
        let several = several.into_iter().flatten();
        let several = several.map(|(_, example)| example["value"].clone());
        let all = value.get("example").cloned().into_iter().chain(several);
        found.extend(all.map(|example| (schema.clone(), example)));
    }
    if let Some(own) = value.get("examples").and_then(Value::as_array) {
        found.extend(own.iter().map(|example| (value.clone(), example.clone())));
    }
    match value {
        Value::Object(members) => members.values().for_each(|value| examples(value, found)),
        Value::Array(items) => items.iter().for_each(|value| examples(value, found)),
        _ => {}
    }
}

#[test]
fn every_example_is_what_its_schema_says() {
    let document = api::openapi::document();
    let mut found = Vec::new();
    examples(&document, &mut found);
    assert!(found.len() > 15, "{}", found.len());
    for (schema, example) in found {
        let validator: Validator = described::validator(&document, schema);
        let wrong = validator.iter_errors(&example);
        let wrong: Vec<_> = wrong.map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{example}: {wrong:?}");
    }
}

#[test]
fn the_schemas_are_schemas_of_their_draft() {
    let document = api::openapi::document();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}");
        described::validator(&document, schema.clone());
    }
}

#[tokio::test]
async fn every_example_of_a_request_is_taken() {
    let api = Api::start_with(&[("GATEWAY_WAIT", "50"), ("WEBHOOK_TIMEOUT", "1")]).await;
    let document = api::openapi::document();
    let mut taken = 0;
    for (path, method, operation) in described::operations(&document) {
        let mut found = Vec::new();
        examples(&operation["requestBody"], &mut found);
        for (_, example) in found {
            let tenant = api.tenant(&format!("tenant {taken}")).await;
            let webhook = tenant.webhook(NUMBER).await.to_string();
            let path = path.replace("{id}", &webhook);
            let method = method.to_uppercase().parse().unwrap();
            let answer = Answer::of(tenant.request(method, &path).json(&example)).await;
            // There is no session of that user, and no gateway that could make one.
            assert!(
                matches!(answer.status, 200..300 | 404 | 503),
                "{path} {example}: {answer:?}"
            );
            taken += 1;
        }
    }
    assert!(taken >= 9, "{taken}");
}

#[tokio::test]
async fn the_document_and_its_page_need_no_token_and_nothing_from_elsewhere() {
    let api = Api::start().await;
    let get = async |path: &str| Answer::of(api.request(Method::GET, path)).await;
    let served = get("/openapi.json").await;
    assert_eq!(served.header("content-type"), "application/json");
    assert_eq!(sorted(served.ok()), sorted(api::openapi::document()));

    let page = get("/docs").await;
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    let html = String::from_utf8(page.bytes).unwrap();
    assert!(!html.contains("//"), "{html}");
    let named = html.split(['"']).filter(|text| text.starts_with("docs/"));
    let files: Vec<_> = named.collect();
    assert_eq!(files.len(), 4);
    for file in files {
        let answer = get(&format!("/{file}")).await;
        assert_eq!(answer.status, 200, "{file}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    get("/docs/index.html").await.problem(404);
    let head = Answer::of(api.request(Method::HEAD, "/docs")).await;
    assert_eq!((head.status, head.bytes.len()), (200, 0));
    for path in ["/openapi.json", "/docs"] {
        let answer = Answer::of(api.request(Method::POST, path)).await;
        answer.problem(405);
        assert_eq!(answer.header("allow"), "GET, HEAD");
    }
}

#[test]
fn a_reader_that_knows_only_the_document_reads_a_delivery() {
    let document = api::openapi::document();
    let body = &document["webhooks"]["event"]["post"]["requestBody"]["content"]["application/json"];
    let validator = described::validator(&document, body["schema"].clone());
    assert!(validator.is_valid(&body["example"]));
    let mut other = body["example"].clone();
    other["metadata"]["media_key"] = json!("AAAA");
    assert!(!validator.is_valid(&other));
}
