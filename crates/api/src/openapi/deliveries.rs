//! What clients receive, in the document's `webhooks` section. Its schemas are the definitions of
//! `docs/payload.schema.json`, each a component of the document: `event` is `delivery.event`.

use serde_json::{Value, json};

const PAYLOAD: &str = include_str!("../../../../docs/payload.schema.json");

/// Where definitions are in the file, and where components are in the document.
const THERE: &str = "#/$defs/";
const HERE: &str = "#/components/schemas/delivery.";

/// The components, by name.
pub(super) fn schemas() -> impl Iterator<Item = (String, Value)> {
    let mut payload: Value = serde_json::from_str(PAYLOAD).expect("the schema is JSON");
    let Value::Object(definitions) = payload["$defs"].take() else {
        unreachable!("the schema has definitions")
    };
    definitions.into_iter().map(|(name, mut schema)| {
        refer(&mut schema);
        (format!("delivery.{name}"), schema)
    })
}

/// Makes references to definitions references to components.
fn refer(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(target) if name == "$ref" => {
                        *target = target.replacen(THERE, HERE, 1);
                    }
                    _ => refer(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(refer),
        _ => {}
    }
}

/// The requests that Recado makes.
pub(super) fn webhooks() -> Value {
    let event = json!({
        "client_id": 1, "message_id": "3EB0F2C1D4A59B", "from": "5511999999999", "to": "5511988888888",
        "timestamp": "2026-11-23T12:00:00.000Z", "type": "text", "content": "Olá!",
        "metadata": {"v": 1, "chat": "5511999999999@s.whatsapp.net", "push_name": "Ana"},
        "event": "message", "event_id": "0192f0c1-2d3e-8a4b-9c5d-6e7f80910a1b",
        "connection_id": "7f8d6c1e-5b4a-4c3d-9e2f-1a0b9c8d7e6f",
    });
    json!({
        "event": {"post": delivery(
            "deliver_event",
            "An event",
            "What happened, to the `webhook_url` of each webhook of the number whose `event_types` cover it. What a \
             message's `metadata` holds depends on its `type`.",
            "delivery.event",
            &event,
        )},
        "batch": {"post": delivery(
            "deliver_batch",
            "Several events",
            "The same for a webhook with `batch`: up to `max_events` of them in one request, which is signed, answered \
             and tried again as one.",
            "delivery.batch",
            &json!({"events": [event]}),
        )},
    })
}

fn delivery(id: &str, summary: &str, description: &str, schema: &str, example: &Value) -> Value {
    let content = json!({
        "schema": {"$ref": format!("#/components/schemas/{schema}")},
        "example": example,
    });
    json!({
        "operationId": id,
        "tags": ["Deliveries"],
        "summary": summary,
        "description": description,
        "security": [],
        "parameters": headers(),
        "requestBody": {"required": true, "content": {"application/json": content}},
        "responses": {
            "2XX": {"description": "You have it. Nothing else is a success, redirects neither."},
            "410": {"description": "You want no more: the webhook is deactivated."},
            "default": {"description": "It is tried again later, not before a `Retry-After` is over."},
        },
    })
}

fn headers() -> Vec<Value> {
    let header = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "header", "required": true, "description": description, "schema": schema});
    vec![
        header(
            "webhook-id",
            "The id of the event or of the batch, the same at every attempt: deduplicate by it.",
            json!({"type": "string"}),
        ),
        header(
            "webhook-timestamp",
            "Unix seconds of this attempt.",
            json!({"type": "integer"}),
        ),
        header(
            "webhook-signature",
            "Standard Webhooks 1.0: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`; two of them, with a \
             space between, while a secret is being rotated.",
            json!({"type": "string", "pattern": "^v1,[A-Za-z0-9+/]+=*( v1,[A-Za-z0-9+/]+=*)*$"}),
        ),
        header(
            "X-Webhook-Event-ID",
            "As `webhook-id`.",
            json!({"type": "string"}),
        ),
        header(
            "X-Webhook-Timestamp",
            "When this attempt was made.",
            json!({"type": "string", "format": "date-time"}),
        ),
        header(
            "X-Webhook-Attempt",
            "Which attempt this is, from 1.",
            json!({"type": "integer", "minimum": 1}),
        ),
    ]
}
