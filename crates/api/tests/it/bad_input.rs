//! What is wrong is named, and nothing is half done.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Answer, Api, NUMBER, Tenant, URL};

const REGISTER: &str = "/api/webhooks/register";

async fn raw(tenant: &Tenant<'_>, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = tenant.request(Method::POST, REGISTER).body(body);
    Answer::of(request.header("Content-Type", content_type)).await
}

fn with(changes: Value) -> Value {
    let mut request = json!({"phone_number": NUMBER, "webhook_url": URL});
    let (Value::Object(request_members), Value::Object(changes)) = (&mut request, changes) else {
        panic!("both are objects")
    };
    request_members.extend(changes);
    request
}

#[tokio::test]
async fn a_registration_that_is_wrong_names_the_field() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let long = format!("https://recado.invalid/{}", "x".repeat(2048));
    let cases = [
        ("phone_number", json!({"phone_number": "12345"})),
        ("phone_number", json!({"phone_number": "0511988887777"})),
        ("phone_number", json!({"phone_number": "not a number"})),
        (
            "phone_number",
            json!({"phone_number": 5_511_988_887_777_i64}),
        ),
        ("phone_number", json!({"phone_number": null})),
        ("webhook_url", json!({"webhook_url": "not a url"})),
        ("webhook_url", json!({"webhook_url": "/hook"})),
        (
            "webhook_url",
            json!({"webhook_url": "ftp://recado.invalid/"}),
        ),
        (
            "webhook_url",
            json!({"webhook_url": "https://user:secret@recado.invalid/"}),
        ),
        ("webhook_url", json!({"webhook_url": long})),
        (
            "webhook_url",
            json!({"webhook_url": "http://127.0.0.1:9000/hook"}),
        ),
        ("webhook_url", json!({"webhook_url": "http://2130706433/"})),
        (
            "webhook_url",
            json!({"webhook_url": "http://[::ffff:10.0.0.1]/"}),
        ),
        (
            "webhook_url",
            json!({"webhook_url": "http://169.254.169.254/latest/meta-data"}),
        ),
        (
            "webhook_url",
            json!({"webhook_url": "http://localhost:9000/"}),
        ),
        ("max_retries", json!({"max_retries": 0})),
        ("max_retries", json!({"max_retries": 101})),
        ("max_retries", json!({"max_retries": "3"})),
        ("max_retries", json!({"max_retries": 2.5})),
        ("event_types", json!({"event_types": []})),
        ("event_types", json!({"event_types": ["messages"]})),
        ("event_types[1]", json!({"event_types": ["message", 7]})),
        ("metadata", json!({"metadata": "text"})),
        ("metadata", json!({"metadata": {"a": "\u{0}"}})),
        (
            "metadata",
            json!({"metadata": {"$serde_json::private::RawValue": "x"}}),
        ),
        ("webhookurl", json!({"webhookurl": URL})),
        ("is_active", json!({"is_active": false})),
    ];
    for (field, changes) in cases {
        let answer = acme.post(REGISTER, with(changes.clone())).await;
        assert_eq!(answer.field(), field, "{changes}");
    }
    for missing in ["phone_number", "webhook_url"] {
        let mut request = with(json!({}));
        request.as_object_mut().unwrap().remove(missing);
        assert_eq!(acme.post(REGISTER, request).await.field(), missing);
    }
    assert_eq!(acme.get("/api/webhooks/list").await.ok()["count"], 0);
}

#[tokio::test]
async fn a_change_that_is_wrong_changes_nothing() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let path = format!("/api/webhooks/{}", acme.webhook(NUMBER).await);
    let before = acme.get(&path).await.ok();
    for (field, changes) in [
        (
            "webhook_url",
            json!({"max_retries": 9, "webhook_url": "http://10.0.0.1/"}),
        ),
        ("is_active", json!({"max_retries": 9, "is_active": "yes"})),
        (
            "phone_number",
            json!({"max_retries": 9, "phone_number": NUMBER}),
        ),
        ("secret", json!({"max_retries": 9, "secret": "whsec_x"})),
    ] {
        assert_eq!(acme.patch(&path, changes).await.field(), field);
    }
    assert_eq!(acme.get(&path).await.ok(), before);
}

#[tokio::test]
async fn a_body_that_is_not_the_json_that_is_expected_is_refused() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let good = with(json!({})).to_string();
    for body in [
        "",
        "{",
        "nonsense",
        "[]",
        "\"text\"",
        "null",
        "{\"a\":1}{",
        "{\"phone_number\": \"\u{1}\"}",
    ] {
        raw(&acme, "application/json", body).await.problem(400);
    }
    raw(&acme, "application/json", vec![b'"', 0xff, b'"'])
        .await
        .problem(400);

    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
    ] {
        raw(&acme, content_type, good.clone()).await.problem(415);
    }
    let compressed = acme
        .request(Method::POST, REGISTER)
        .header("Content-Type", "application/json")
        .header("Content-Encoding", "gzip")
        .body(good.clone());
    Answer::of(compressed).await.problem(415);

    let answer = raw(&acme, "Application/JSON; charset=utf-8", good).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn a_body_over_a_mebibyte_is_too_large_however_it_comes() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    const LIMIT: usize = 1024 * 1024;
    let padded = |length: usize| {
        let mut body = with(json!({})).to_string();
        body.insert_str(1, &" ".repeat(length - body.len()));
        body
    };
    raw(&acme, "application/json", padded(LIMIT + 1))
        .await
        .problem(413);
    let chunks: Vec<Result<String, std::io::Error>> =
        (0..3).map(|_| Ok(" ".repeat(LIMIT / 2))).collect();
    let streamed = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    raw(&acme, "application/json", streamed).await.problem(413);

    let answer = raw(&acme, "application/json", padded(LIMIT)).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn a_path_with_something_other_than_a_uuid_names_it() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    for (method, path, field) in [
        (Method::GET, "/api/webhooks/7", "id"),
        (Method::DELETE, "/api/webhooks/7", "id"),
        (Method::GET, "/api/webhooks/7/events", "id"),
        (Method::GET, "/api/webhooks/7/secret", "id"),
        (Method::GET, "/api/webhooks/events/7", "event_id"),
        (Method::POST, "/api/webhooks/events/7/retry", "event_id"),
        (Method::GET, "/api/whatsapp/status/7", "user_id"),
        (Method::GET, "/api/whatsapp/qr/%00", "user_id"),
        (Method::DELETE, "/api/whatsapp/connections/7", "session_id"),
    ] {
        let answer = Answer::of(acme.request(method, path)).await;
        assert_eq!(answer.field(), field, "{path}");
    }
}

#[tokio::test]
async fn a_query_that_is_wrong_names_the_parameter() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let events = format!("/api/webhooks/{}/events", acme.webhook(NUMBER).await);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("cursor=nonsense", "cursor"),
        ("page=2", "page"),
    ] {
        assert_eq!(
            acme.get(&format!("/api/webhooks/list?{query}"))
                .await
                .field(),
            field
        );
        assert_eq!(acme.get(&format!("{events}?{query}")).await.field(), field);
    }
    for (query, field) in [("offset=-1", "offset"), ("offset=10001", "offset")] {
        assert_eq!(acme.get(&format!("{events}?{query}")).await.field(), field);
    }
    acme.get(&format!("{events}?offset=10000&limit=100"))
        .await
        .ok();
}

#[tokio::test]
async fn a_session_request_that_is_wrong_names_the_field() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let user = Uuid::new_v4();
    for (path, body, field) in [
        ("connect", json!({"phone_number": NUMBER}), "user_id"),
        (
            "connect",
            json!({"user_id": "7", "phone_number": NUMBER}),
            "user_id",
        ),
        (
            "connect",
            json!({"user_id": user, "phone_number": "7"}),
            "phone_number",
        ),
        (
            "connect",
            json!({"user_id": user, "phone_number": NUMBER, "pairing": "nfc"}),
            "pairing",
        ),
        (
            "connect",
            json!({"user_id": user, "phone_number": NUMBER, "name": "x"}),
            "name",
        ),
        ("disconnect", json!({}), "user_id"),
        ("logout", json!({"user_id": user, "force": true}), "force"),
    ] {
        let answer = acme
            .post(&format!("/api/whatsapp/{path}"), body.clone())
            .await;
        assert_eq!(answer.field(), field, "{path} {body}");
    }
    assert_eq!(acme.get("/api/whatsapp/connections").await.ok()["count"], 0);

    let rotate = format!("/api/webhooks/{}/secret/rotate", acme.webhook(NUMBER).await);
    for body in [
        json!({"overlap_seconds": -1}),
        json!({"overlap_seconds": 1e9}),
    ] {
        assert_eq!(acme.post(&rotate, body).await.field(), "overlap_seconds");
    }
}

#[tokio::test]
async fn routes_and_methods_that_there_are_not_are_problems_too() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    for path in [
        "/",
        "/api",
        "/api/",
        "/api/webhooks",
        "/api/webhooks/list/",
        "/metrics",
        "/apix",
    ] {
        acme.get(path).await.problem(404);
    }
    for (method, path, allowed) in [
        (Method::PUT, "/health", "GET, HEAD"),
        (Method::POST, "/me", "GET, HEAD"),
        (Method::GET, REGISTER, "POST"),
        (
            Method::PUT,
            "/api/webhooks/018f0000-0000-7000-8000-000000000000",
            "GET, HEAD, PATCH, DELETE",
        ),
    ] {
        let answer = Answer::of(acme.request(method, path)).await;
        answer.problem(405);
        assert_eq!(answer.header("allow"), allowed);
    }
}
