use diesel_async::SimpleAsyncConnection;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::admin::lines;
use crate::dispatcher::fail;
use crate::world::{Api, NUMBER, Tenant, id, redacted};

/// Events that failed, oldest first.
async fn failed(api: &Api, tenant: &Tenant<'_>, message_ids: &[&str]) -> Vec<Uuid> {
    let connection = tenant.connection(NUMBER).await;
    let events = tenant.receive(&connection, message_ids).await;
    for event in &events {
        fail(api, *event).await;
    }
    events
}

fn ids(page: &Value) -> Vec<Uuid> {
    let letters = page["dead_letters"].as_array().unwrap();
    assert_eq!(page["count"], letters.len());
    letters
        .iter()
        .map(|letter| id(&letter["event_id"]))
        .collect()
}

#[tokio::test]
async fn dead_letters_are_listed_newest_first_and_pages_meet() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let mut events = failed(&api, &acme, &["A", "B", "C", "D"]).await;
    events.reverse();
    let path = format!("/api/webhooks/{webhook}/dead-letters");
    let first = acme.get(&format!("{path}?limit=1")).await.ok();
    assert_json_snapshot!("page_of_dead_letters", redacted(first));

    // Also where several became one at the same time.
    for same_time in [false, true] {
        if same_time {
            let now = "UPDATE whatsapp_dead_letters SET created_at = now()";
            api.conn().await.batch_execute(now).await.unwrap();
            events.sort_unstable_by(|a, b| b.cmp(a));
        }
        let mut seen = Vec::new();
        let mut next = format!("{path}?limit=2");
        loop {
            let page = acme.get(&next).await.ok();
            seen.extend(ids(&page));
            let Some(cursor) = page["next_cursor"].as_str() else {
                break;
            };
            next = format!("{path}?limit=2&cursor={cursor}");
        }
        assert_eq!(seen, events);
    }
    for (query, field) in [
        ("limit=0", "limit"),
        ("cursor=x", "cursor"),
        ("offset=1", "offset"),
    ] {
        assert_eq!(acme.get(&format!("{path}?{query}")).await.field(), field);
    }
}

#[tokio::test]
async fn dead_letters_are_delivered_again_also_when_their_events_are_gone() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let events = failed(&api, &acme, &["A", "B", "C"]).await;
    let changes = format!(
        "DELETE FROM whatsapp_webhook_events WHERE id = '{}';
         UPDATE whatsapp_dead_letters SET created_at = '2026-11-23T00:00:00Z' WHERE event_id = '{}'",
        events[0], events[2]
    );
    api.conn().await.batch_execute(&changes).await.unwrap();

    let path = format!("/api/webhooks/{webhook}/dead-letters");
    let since = json!({"since": "2026-11-24T00:00:00Z"});
    let answer = acme.post(&format!("{path}/replay"), since).await;
    assert_eq!(
        (answer.status, answer.json()),
        (202, json!({"status": "success", "count": 2}))
    );
    assert_eq!(ids(&acme.get(&path).await.ok()), [events[2]]);
    for event in &events[..2] {
        let shown = acme
            .get(&format!("/api/webhooks/events/{event}"))
            .await
            .ok();
        assert_eq!(
            (&shown["event"]["status"], &shown["event"]["attempt_count"]),
            (&json!("pending"), &json!(0))
        );
    }
}

#[tokio::test]
async fn dead_letters_are_deleted_and_their_events_stay() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let events = failed(&api, &acme, &["A", "B"]).await;
    let path = format!("/api/webhooks/{webhook}/dead-letters");
    // Also while it takes no deliveries.
    let inactive = json!({"is_active": false});
    acme.patch(&format!("/api/webhooks/{webhook}"), inactive)
        .await
        .ok();

    let deleted = acme.delete(&path).await.ok();
    assert_eq!(deleted, json!({"status": "success", "count": 2}));
    assert_eq!(ids(&acme.get(&path).await.ok()), Vec::<Uuid>::new());
    assert_eq!(acme.delete(&path).await.ok()["count"], 0);
    let shown = acme
        .get(&format!("/api/webhooks/events/{}", events[0]))
        .await
        .ok();
    assert_eq!(shown["event"]["status"], "failed");
    let verified = lines(api.database.url(), &["verify"]).await;
    assert!(verified.iter().all(|line| line[0] == "ok"), "{verified:?}");
}
