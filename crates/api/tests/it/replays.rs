use diesel_async::SimpleAsyncConnection;
use domain::parking::release_parked;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::dispatcher::{deliver, fail};
use crate::world::{Answer, Api, NUMBER, Tenant};

/// The statuses of a webhook's events, by message id.
async fn statuses(tenant: &Tenant<'_>, webhook: Uuid) -> Value {
    let path = format!("/api/webhooks/{webhook}/events?limit=100");
    let mut all = json!({});
    for event in tenant.get(&path).await.ok()["events"].as_array().unwrap() {
        let parked = event["parked"].as_str().unwrap_or("");
        all[event["message_id"].as_str().unwrap()] =
            format!("{} {parked}", event["status"].as_str().unwrap())
                .trim()
                .into();
    }
    all
}

#[tokio::test]
async fn what_failed_is_requeued_and_flows_and_the_rest_when_it_is_asked_for() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    let events = acme
        .receive(&connection, &["failed", "delivered", "pending"])
        .await;
    fail(&api, events[0]).await;
    deliver(&api, events[1]).await;
    let path = format!("/api/webhooks/{webhook}/replay");

    // Whatever the content type, without a body.
    let answer = Answer::of(acme.request(Method::POST, &path)).await;
    assert_eq!(
        (answer.status, answer.json()),
        (202, json!({"status": "success", "count": 1}))
    );
    let backlog =
        json!({"failed": "pending backlog", "delivered": "delivered", "pending": "pending"});
    assert_eq!(statuses(&acme, webhook).await, backlog);
    assert_eq!(release_parked(&mut *api.conn().await, 10).await.unwrap(), 1);
    deliver(&api, events[0]).await;

    let none = acme.post(&path, json!({"status": "failed"})).await;
    assert_eq!((none.status, &none.json()["count"]), (202, &json!(0)));
    let both = acme.post(&path, json!({"status": "all"})).await;
    assert_eq!((both.status, &both.json()["count"]), (202, &json!(2)));
    assert_eq!(statuses(&acme, webhook).await["pending"], "pending");
}

#[tokio::test]
async fn a_span_of_time_is_replayed_and_nothing_else() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    for (hour, event) in acme
        .receive(&connection, &["1", "2", "3"])
        .await
        .iter()
        .enumerate()
    {
        deliver(&api, *event).await;
        let at = format!(
            "UPDATE whatsapp_webhook_events SET created_at = '2026-11-23T0{}:00:00Z' WHERE id = '{event}'",
            hour + 1
        );
        api.conn().await.batch_execute(&at).await.unwrap();
    }
    let span = json!({
        "status": "delivered",
        "since": "2026-11-23T02:00:00Z",
        "until": "2026-11-22T23:00:00-04:00",
    });
    let path = format!("/api/webhooks/{webhook}/replay");
    assert_eq!(acme.post(&path, span).await.json()["count"], 1);
    let expected = json!({"1": "delivered", "2": "pending backlog", "3": "delivered"});
    assert_eq!(statuses(&acme, webhook).await, expected);
}

#[tokio::test]
async fn a_replay_that_is_wrong_or_would_go_nowhere_is_refused() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    fail(&api, acme.receive(&connection, &["failed"]).await[0]).await;
    let path = format!("/api/webhooks/{webhook}");
    let (replay, letters) = (
        format!("{path}/replay"),
        format!("{path}/dead-letters/replay"),
    );
    for (field, body) in [
        ("status", json!({"status": "pending"})),
        ("status", json!({"status": ["failed"]})),
        ("state", json!({"state": "failed"})),
    ] {
        assert_eq!(acme.post(&replay, body).await.field(), field);
    }
    for (field, body) in [
        ("since", json!({"since": "yesterday"})),
        ("until", json!({"until": 1_764_000_000})),
        (
            "until",
            json!({"since": "2026-11-23T02:00:00Z", "until": "2026-11-23T02:00:00Z"}),
        ),
        ("before", json!({"before": "2026-11-23T02:00:00Z"})),
    ] {
        for path in [&replay, &letters] {
            assert_eq!(acme.post(path, body.clone()).await.field(), field);
        }
    }
    assert_eq!(
        acme.post(&letters, json!({"status": "failed"}))
            .await
            .field(),
        "status"
    );

    acme.patch(&path, json!({"is_active": false})).await.ok();
    for path in [&replay, &letters] {
        let refused = acme.post(path, json!({})).await.problem(409);
        assert_eq!(refused["type"], "urn:recado:problem:no-receiver");
    }
    assert_eq!(statuses(&acme, webhook).await["failed"], "failed");
}

#[tokio::test]
async fn thousands_of_events_are_replayed_in_one_call() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let many = format!(
        r#"INSERT INTO whatsapp_webhook_events (id, client_id, webhook_id, source_id, event_type, message_id,
               chat, "from", "to", message_type, content, metadata, "timestamp", status)
           SELECT gen_random_uuid(), {}, '{webhook}', gen_random_uuid(), 'message', n::text,
               '', '', '', 'text', '', '{{}}', now(), CASE WHEN n % 2 = 0 THEN 'failed' ELSE 'delivered' END
           FROM generate_series(1, 5001) n"#,
        acme.id
    );
    api.conn().await.batch_execute(&many).await.unwrap();
    let path = format!("/api/webhooks/{webhook}/replay");
    assert_eq!(acme.post(&path, json!({})).await.json()["count"], 2500);
    assert_eq!(
        acme.post(&path, json!({"status": "all"})).await.json()["count"],
        2501
    );
}
