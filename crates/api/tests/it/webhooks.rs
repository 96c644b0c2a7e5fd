use domain::webhook::Changes;
use insta::assert_json_snapshot;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::world::{Answer, Api, NUMBER, URL, id, redacted};

#[tokio::test]
async fn a_webhook_is_registered_shown_listed_changed_and_deleted() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let request = json!({
        "phone_number": "+55 (11) 98888-7777",
        "webhook_url": URL,
        "max_retries": 7,
        "event_types": ["message.*", "connection.open"],
        "metadata": {"shard": 3, "tags": ["a"]},
    });

    let made = acme.post("/api/webhooks/register", request).await;
    assert_eq!(made.status, 201);
    assert_json_snapshot!("registered", redacted(made.json()));
    let path = format!("/api/webhooks/{}", id(&made.json()["webhook"]["id"]));

    assert_json_snapshot!("shown", redacted(acme.get(&path).await.ok()));
    assert_json_snapshot!(
        "listed",
        redacted(acme.get("/api/webhooks/list").await.ok())
    );

    let changes =
        json!({"is_active": false, "max_retries": 1, "event_types": ["*"], "metadata": {}});
    let changed = acme.patch(&path, changes).await.ok();
    assert_json_snapshot!("changed", redacted(changed.clone()));
    assert_eq!(acme.get(&path).await.ok()["webhook"], changed["webhook"]);

    let deleted = acme.delete(&path).await.ok();
    assert_eq!(
        deleted,
        json!({"status": "success", "message": "Webhook deleted successfully"})
    );
    acme.get(&path).await.problem(404);
    acme.delete(&path).await.problem(404);
    let listed = acme.get("/api/webhooks/list").await.ok();
    assert_eq!(
        (&listed["count"], &listed["webhooks"]),
        (&json!(0), &json!([]))
    );
}

#[tokio::test]
async fn a_number_that_is_registered_again_is_updated_and_its_secret_stays() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let first = acme
        .post(
            "/api/webhooks/register",
            json!({"phone_number": NUMBER, "webhook_url": URL}),
        )
        .await;
    let webhook = id(&first.json()["webhook"]["id"]);
    acme.patch(
        &format!("/api/webhooks/{webhook}"),
        json!({"is_active": false}),
    )
    .await
    .ok();

    // The same number without Brazil's ninth digit.
    let again = json!({"phone_number": "551188887777@s.whatsapp.net", "webhook_url": "https://other.invalid/"});
    let again = acme.post("/api/webhooks/register", again).await.ok();
    assert_eq!(id(&again["webhook"]["id"]), webhook);
    assert_eq!(again["webhook"]["webhook_url"], "https://other.invalid/");
    assert_eq!(again["webhook"]["is_active"], true);
    assert_eq!(again["webhook"]["phone_number"], NUMBER);
    assert_eq!(again.get("secret"), None);

    let secret = acme
        .get(&format!("/api/webhooks/{webhook}/secret"))
        .await
        .ok();
    assert_eq!(secret["secret"], first.json()["secret"]);
}

#[tokio::test]
async fn pages_of_webhooks_are_newest_first_and_meet() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(acme.webhook(&format!("49151000000{number}")).await);
    }
    made.reverse();

    let mut seen: Vec<Uuid> = Vec::new();
    let mut path = "/api/webhooks/list?limit=2".to_owned();
    loop {
        let page = acme.get(&path).await.ok();
        let webhooks = page["webhooks"].as_array().unwrap();
        assert_eq!(page["count"], webhooks.len());
        seen.extend(webhooks.iter().map(|webhook| id(&webhook["id"])));
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/api/webhooks/list?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, made);
}

#[tokio::test]
async fn a_secret_is_rotated_and_the_one_before_it_signs_on_for_a_while() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let path = format!("/api/webhooks/{webhook}/secret");
    let before = acme.get(&path).await.ok()["secret"].clone();
    assert!(before.as_str().unwrap().starts_with("whsec_"));

    // Without a body, whatever the content type.
    let rotated = Answer::of(acme.request(Method::POST, &format!("{path}/rotate")))
        .await
        .ok();
    assert_eq!(
        redacted(rotated.clone()),
        json!({"status": "success", "secret": "[secret]"})
    );
    assert_ne!(rotated["secret"], before);
    assert_eq!(acme.get(&path).await.ok()["secret"], rotated["secret"]);

    let mut conn = api.conn().await;
    let row = domain::webhook::Webhook::find(&mut conn, acme.id, webhook)
        .await
        .unwrap()
        .unwrap();
    let overlap = row.previous_secret_expires_at.unwrap() - row.updated_at;
    assert_eq!(overlap.num_seconds(), 86_400);

    acme.post(&format!("{path}/rotate"), json!({"overlap_seconds": 60}))
        .await
        .ok();
    let row = domain::webhook::Webhook::find(&mut conn, acme.id, webhook)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (row.previous_secret_expires_at.unwrap() - row.updated_at).num_seconds(),
        60
    );
}

#[tokio::test]
async fn secrets_are_in_no_answer_but_those_that_are_for_them() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    for path in [
        format!("/api/webhooks/{webhook}"),
        "/api/webhooks/list".to_owned(),
    ] {
        let answer = acme.get(&path).await;
        assert!(!String::from_utf8_lossy(&answer.bytes).contains("secret"));
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn an_empty_change_changes_nothing_and_activation_forgets_failures() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let path = format!("/api/webhooks/{webhook}");
    let before = acme.get(&path).await.ok()["webhook"].clone();
    let mut after = acme.patch(&path, json!({})).await.ok()["webhook"].clone();
    after["updated_at"] = before["updated_at"].clone();
    assert_eq!(after, before);

    let failing = Changes {
        is_active: Some(false),
        ..Changes::default()
    };
    let mut conn = api.conn().await;
    domain::webhook::Webhook::update(&mut conn, acme.id, webhook, &failing)
        .await
        .unwrap();
    let active = acme.patch(&path, json!({"is_active": true})).await.ok();
    assert_eq!(active["webhook"]["is_active"], true);
    assert_eq!(active["webhook"]["failure_count"], 0);
}

#[tokio::test]
async fn an_address_that_the_operator_allows_is_taken_and_kept_as_it_was_written() {
    let api = Api::start_with(&[("WEBHOOK_ALLOWED_CIDRS", "127.0.0.0/8")]).await;
    let acme = api.tenant("acme").await;
    let url = "http://127.1:9000/hook?a=b";
    let request = json!({"phone_number": NUMBER, "webhook_url": url});
    let made = acme.post("/api/webhooks/register", request).await;
    assert_eq!(
        (made.status, &made.json()["webhook"]["webhook_url"]),
        (201, &json!(url))
    );
    let path = format!("/api/webhooks/{}", id(&made.json()["webhook"]["id"]));
    let refused = acme
        .patch(&path, json!({"webhook_url": "http://10.0.0.1/"}))
        .await;
    assert_eq!(refused.field(), "webhook_url");
}
