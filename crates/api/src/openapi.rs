//! The API's description (OpenAPI 3.1), made of what stands at its handlers and at the types that they read and
//! write. `docs/openapi.json` is a copy of it, which a test compares.

pub(crate) mod answers;
pub(crate) mod schema;
pub(crate) mod values;

mod deliveries;

use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, openapi};

use domain::feed::Delivery;

use crate::error::Problem;
use crate::handlers::{
    clients, connections, dead_letters, docs, events, health, media, pairing, replays, samples,
    secrets, sending, stats, stream, webhooks,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Recado",
        description = include_str!("openapi/description.md"),
        license(name = "MIT"),
    ),
    servers((url = "/", description = "Where this document came from.")),
    tags(
        (name = "Webhooks", description = "Where a number's events go, and how."),
        (name = "Events", description = "The ledger: what was sent where, and what came of it."),
        (name = "WhatsApp", description = "Numbers: connect them, send from them."),
        (name = "Media", description = "Files of messages."),
        (name = "Service", description = "About the API itself, and about you."),
        (name = "Deliveries", description = "What Recado sends to you."),
    ),
    security(("bearer" = [])),
    components(schemas(Problem, Delivery)),
    modifiers(&Shared),
    paths(
        webhooks::register,
        webhooks::list,
        webhooks::show,
        webhooks::update,
        webhooks::remove,
        samples::send,
        secrets::show,
        secrets::rotate,
        stats::show,
        events::list,
        events::show,
        events::retry,
        stream::follow,
        replays::replay,
        dead_letters::list,
        dead_letters::replay,
        dead_letters::remove,
        pairing::connect,
        pairing::qr,
        connections::list,
        connections::status,
        connections::disconnect,
        connections::logout,
        connections::remove,
        sending::send,
        media::upload,
        media::show,
        clients::me,
        health::show,
        docs::description,
        docs::page,
    )
)]
struct Annotated;

/// What all calls share.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.responses.extend(answers::components());
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("What `recado-api client create` printed."));
        let bearer = SecurityScheme::Http(bearer.build());
        components.add_security_scheme("bearer", bearer);
    }
}

/// The whole document.
pub fn document() -> Value {
    let mut document =
        serde_json::to_value(Annotated::openapi()).expect("a document can be written as JSON");
    document["webhooks"] = deliveries::webhooks();
    for item in members(&mut document["paths"]) {
        members(item).for_each(allow_no_body);
    }
    let schemas = &mut document["components"]["schemas"];
    for (name, schema) in deliveries::schemas() {
        schemas[name] = schema;
    }
    schemas["Send"]["oneOf"] = schema::exactly_one(&sending::ONE_OF);
    schemas["File"]["oneOf"] = schema::exactly_one(&["url", "media_id"]);
    document
}

fn members(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    let object = value.as_object_mut();
    object.into_iter().flat_map(|object| object.values_mut())
}

/// Where a body may be missing, utoipa would have it that it may be null.
fn allow_no_body(operation: &mut Value) {
    let Some(body) = operation.get_mut("requestBody") else {
        return;
    };
    let schema = &mut body["content"]["application/json"]["schema"];
    let without_null = schema["oneOf"].as_array().map(|forms| {
        let is_null = |form: &&Value| form["type"] == "null";
        forms.iter().find(|form| !is_null(form)).cloned()
    });
    if let Some(form) = without_null.flatten() {
        *schema = form;
        body["required"] = false.into();
    }
}
