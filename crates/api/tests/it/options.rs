//! The options by which a webhook says how it wants its deliveries.

use domain::keyring::Keyring;
use domain::webhook::{Webhook, open_headers};
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Api, KEY, NUMBER, Tenant, URL, id, redacted};

const REGISTER: &str = "/api/webhooks/register";

fn with(options: Value) -> Value {
    let mut request = json!({"phone_number": NUMBER, "webhook_url": URL});
    for (name, value) in options.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

fn every_option() -> Value {
    json!({
        "max_retries": 9,
        "event_types": ["*"],
        "metadata": {"shard": 1},
        "custom_headers": {"Authorization": "Bearer hunter2", "X-Shard": "1"},
        "rate_limit_per_second": 50,
        "max_in_flight": 4,
        "batch": {"max_events": 100, "max_wait_ms": 250},
        "ordered": true,
        "allowed_ip_ranges": ["203.0.113.77/24", "2001:db8::/32", "203.0.113.0/24"],
        "inline_media_bytes": 65_536,
    })
}

/// The headers as a dispatcher reads them.
async fn headers(tenant: &Tenant<'_>, webhook: Uuid) -> Value {
    let row = Webhook::find(&mut *tenant.conn().await, tenant.id, webhook)
        .await
        .unwrap()
        .unwrap();
    let keyring = Keyring::parse(KEY).unwrap();
    let sealed = row.custom_headers;
    json!(sealed.map(|sealed| open_headers(&keyring, webhook, &sealed).unwrap()))
}

#[tokio::test]
async fn every_option_is_taken_and_shown_and_headers_without_their_values() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let made = acme.post(REGISTER, with(every_option())).await;
    assert_eq!(made.status, 201);
    assert_json_snapshot!("all_set", redacted(made.json()["webhook"].clone()));
    let webhook = id(&made.json()["webhook"]["id"]);

    let path = format!("/api/webhooks/{webhook}");
    for path in [&path, "/api/webhooks/list"] {
        let answer = acme.get(path).await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert!(
            text.contains("Authorization") && !text.contains("hunter2"),
            "{text}"
        );
    }
    assert_eq!(
        headers(&acme, webhook).await,
        every_option()["custom_headers"]
    );
}

#[tokio::test]
async fn an_option_that_is_not_given_stays_also_when_the_number_is_registered_again() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let made = acme.post(REGISTER, with(every_option())).await.json()["webhook"].clone();
    let webhook = id(&made["id"]);
    let same = |mut shown: Value, but: &[&str]| {
        for name in ["updated_at"].iter().chain(but) {
            shown[name] = made[name].clone();
        }
        assert_eq!(shown, made);
    };

    let again = acme
        .post(REGISTER, with(json!({"max_in_flight": 7})))
        .await
        .ok();
    assert_eq!(again["webhook"]["max_in_flight"], 7);
    same(again["webhook"].clone(), &["max_in_flight"]);
    let path = format!("/api/webhooks/{webhook}");
    let change = json!({"ordered": false, "inline_media_bytes": 0});
    let changed = acme.patch(&path, change).await.ok();
    assert_eq!(changed["webhook"]["ordered"], false);
    assert_eq!(changed["webhook"]["inline_media_bytes"], 0);
    same(
        changed["webhook"].clone(),
        &["max_in_flight", "ordered", "inline_media_bytes"],
    );
    assert_eq!(
        headers(&acme, webhook).await,
        every_option()["custom_headers"]
    );

    // Registering again seals for the row that is there, not for the one that would have been made.
    let other = json!({"custom_headers": {"X-Other": "value"}});
    acme.post(REGISTER, with(other.clone())).await.ok();
    assert_eq!(headers(&acme, webhook).await, other["custom_headers"]);
}

#[tokio::test]
async fn null_or_nothing_takes_an_option_away() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let none = json!({
        "custom_headers": {},
        "rate_limit_per_second": null,
        "batch": null,
        "allowed_ip_ranges": [],
    });
    let made = acme.post(REGISTER, with(every_option())).await.json()["webhook"].clone();
    let path = format!("/api/webhooks/{}", id(&made["id"]));
    for headers_away in [json!(null), json!({})] {
        acme.patch(&path, every_option()).await.ok();
        let mut away = none.clone();
        away["custom_headers"] = headers_away;
        let shown = acme.patch(&path, away).await.ok()["webhook"].clone();
        for (name, value) in none.as_object().unwrap() {
            assert_eq!(&shown[name], value, "{name}");
        }
        assert_eq!(headers(&acme, id(&made["id"])).await, json!(null));
        assert_eq!(shown["ordered"], true);
    }
}

#[tokio::test]
async fn an_option_that_is_wrong_is_named_and_changes_nothing() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let path = format!("/api/webhooks/{}", acme.webhook(NUMBER).await);
    let before = acme.get(&path).await.ok();
    for (field, options) in [
        ("custom_headers", json!({"custom_headers": []})),
        (
            "custom_headers",
            json!({"custom_headers": {"X-Webhook-Attempt": "1"}}),
        ),
        (
            "custom_headers",
            json!({"custom_headers": {"Content-Type": "text/plain"}}),
        ),
        (
            "custom_headers",
            json!({"custom_headers": {"X-A": "1\r\nHost: x"}}),
        ),
        ("custom_headers.X-A", json!({"custom_headers": {"X-A": 1}})),
        ("rate_limit_per_second", json!({"rate_limit_per_second": 0})),
        (
            "rate_limit_per_second",
            json!({"rate_limit_per_second": 10_001}),
        ),
        ("max_in_flight", json!({"max_in_flight": 0})),
        ("max_in_flight", json!({"max_in_flight": 257})),
        ("max_in_flight", json!({"max_in_flight": null})),
        ("batch", json!({"batch": 10})),
        ("batch.max_wait_ms", json!({"batch": {"max_events": 10}})),
        (
            "batch.max_events",
            json!({"batch": {"max_events": 1, "max_wait_ms": 0}}),
        ),
        (
            "batch.max_bytes",
            json!({"batch": {"max_events": 2, "max_wait_ms": 0, "max_bytes": 1}}),
        ),
        ("ordered", json!({"ordered": "yes"})),
        ("ordered", json!({"ordered": null})),
        ("allowed_ip_ranges", json!({"allowed_ip_ranges": null})),
        (
            "allowed_ip_ranges",
            json!({"allowed_ip_ranges": "203.0.113.0/24"}),
        ),
        (
            "allowed_ip_ranges[1]",
            json!({"allowed_ip_ranges": ["203.0.113.0/24", "203.0.113.7"]}),
        ),
        ("inline_media_bytes", json!({"inline_media_bytes": -1})),
        (
            "inline_media_bytes",
            json!({"inline_media_bytes": 1_048_577}),
        ),
        ("inline_media_bytes", json!({"inline_media_bytes": "1 MB"})),
        ("inline_media_bytes", json!({"inline_media_bytes": null})),
        ("max_retries", json!({"max_retries": null})),
        ("event_types", json!({"event_types": null})),
        ("metadata", json!({"metadata": null})),
        ("headers", json!({"headers": {}})),
    ] {
        let answer = acme.post(REGISTER, with(options.clone())).await;
        assert_eq!(answer.field(), field, "{options}");
        let mut options = options;
        // Nothing of a request that is refused is done.
        if field != "max_retries" {
            options["max_retries"] = json!(99);
        }
        assert_eq!(
            acme.patch(&path, options.clone()).await.field(),
            field,
            "{options}"
        );
    }
    for (field, options) in [
        ("is_active", json!({"is_active": null})),
        ("webhook_url", json!({"webhook_url": null})),
    ] {
        assert_eq!(acme.patch(&path, options).await.field(), field);
    }
    assert_eq!(acme.get(&path).await.ok(), before);
}

#[tokio::test]
async fn an_address_outside_of_the_ranges_of_its_webhook_is_refused_whichever_came_first() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let outside = json!({"webhook_url": "https://1.1.1.1/hook"});
    let ranges = json!({"allowed_ip_ranges": ["9.9.9.0/24"]});
    let mut both = outside.clone();
    both["allowed_ip_ranges"] = ranges["allowed_ip_ranges"].clone();
    let refused = acme.post(REGISTER, with(both)).await;
    assert_eq!(refused.field(), "allowed_ip_ranges");
    assert_eq!(
        acme.get("/api/webhooks/list").await.ok()["count"],
        0,
        "nothing was registered"
    );

    let path = format!("/api/webhooks/{}", acme.webhook(NUMBER).await);
    acme.patch(&path, outside.clone()).await.ok();
    let before = acme.get(&path).await.ok();
    assert_eq!(
        acme.patch(&path, ranges.clone()).await.field(),
        "allowed_ip_ranges"
    );
    assert_eq!(acme.get(&path).await.ok(), before);

    acme.patch(&path, json!({"webhook_url": URL})).await.ok();
    acme.patch(&path, ranges).await.ok();
    assert_eq!(
        acme.patch(&path, outside.clone()).await.field(),
        "webhook_url"
    );
    let again = acme.post(REGISTER, with(outside)).await;
    assert_eq!(again.field(), "webhook_url");
    acme.patch(&path, json!({"webhook_url": "https://9.9.9.9/hook"}))
        .await
        .ok();
}
