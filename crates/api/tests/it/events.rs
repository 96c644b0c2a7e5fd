use diesel_async::SimpleAsyncConnection;
use domain::claim::{self, Release};
use insta::assert_json_snapshot;
use queue::Listener;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::eventually;
use uuid::Uuid;

use crate::dispatcher::{SECOND, fail};
use crate::world::{Answer, Api, NUMBER, Tenant, id, redacted};

async fn post_nothing(tenant: &Tenant<'_>, path: &str) -> Answer {
    Answer::of(tenant.request(Method::POST, path)).await
}

#[tokio::test]
async fn an_event_shows_its_payload_and_every_attempt() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    let event = acme.receive(&connection, &["3EB0"]).await[0];
    let path = format!("/api/webhooks/events/{event}");
    assert_json_snapshot!("pending_event", redacted(acme.get(&path).await.ok()));

    let mut conn = api.conn().await;
    let token = Uuid::new_v4();
    let claimed = claim::claim(&mut conn, &[event], token, 60.0)
        .await
        .unwrap();
    let sent: Value = serde_json::from_slice(&claimed[0].body().unwrap()).unwrap();
    assert_eq!(acme.get(&path).await.ok()["event"]["payload"], sent);

    let given_back = Release {
        event_id: event,
        webhook_id: claimed[0].webhook_id,
        token,
        delay_seconds: 0.0,
        park: None,
    };
    claim::release(&mut conn, &[given_back]).await.unwrap();
    fail(&api, event).await;
    assert_json_snapshot!("failed_event", redacted(acme.get(&path).await.ok()));
}

#[tokio::test]
async fn a_retry_starts_the_event_again_and_rings() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    let event = acme.receive(&connection, &["3EB0"]).await[0];
    fail(&api, event).await;

    let path = format!("/api/webhooks/events/{event}");
    let answer = post_nothing(&acme, &format!("{path}/retry")).await.ok();
    assert_eq!(
        answer,
        json!({
            "status": "success",
            "message": "Event requeued for delivery",
            "event": {"id": event, "status": "pending", "attempt_count": 0},
        })
    );
    assert_eq!(
        Listener::new(api.redis.client())
            .wait(10, SECOND)
            .await
            .unwrap(),
        [event]
    );
    let shown = acme.get(&path).await.ok()["event"].clone();
    assert_eq!(
        (&shown["status"], &shown["attempt_count"]),
        (&json!("pending"), &json!(0))
    );
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_event_whose_webhook_takes_nothing_cannot_be_retried() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    let event = acme.receive(&connection, &["3EB0"]).await[0];
    acme.delete(&format!("/api/webhooks/{webhook}")).await.ok();

    let refused = post_nothing(&acme, &format!("/api/webhooks/events/{event}/retry")).await;
    assert_eq!(
        refused.problem(409)["type"],
        "urn:recado:problem:no-receiver"
    );
    let shown = acme
        .get(&format!("/api/webhooks/events/{event}"))
        .await
        .ok();
    assert_eq!(shown["event"]["status"], "failed");
}

#[tokio::test]
async fn events_are_listed_newest_first_by_offset_and_by_cursor() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    let mut expected = acme.receive(&connection, &["A", "B", "C", "D", "E"]).await;
    expected.reverse();
    let path = format!("/api/webhooks/{webhook}/events");
    let ids = |page: &Value| -> Vec<Uuid> {
        page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| id(&event["id"]))
            .collect()
    };

    let all = acme.get(&path).await.ok();
    assert_eq!((&all["total"], &all["count"]), (&json!(5), &json!(5)));
    assert_eq!(
        (&all["total_is_capped"], &all["next_cursor"]),
        (&json!(false), &json!(null))
    );
    assert_eq!(ids(&all), expected);

    let page = acme.get(&format!("{path}?limit=2&offset=1")).await.ok();
    assert_json_snapshot!("page_of_events", redacted(page.clone()));
    assert_eq!(ids(&page), expected[1..3]);

    let mut seen = ids(&page);
    let mut cursor = page["next_cursor"].as_str().map(str::to_owned);
    while let Some(behind) = cursor {
        // What arrives meanwhile is newer, and moves no page.
        acme.receive(&connection, &[&format!("later than {behind}")])
            .await;
        let page = acme
            .get(&format!("{path}?limit=2&cursor={behind}"))
            .await
            .ok();
        seen.extend(ids(&page));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, expected[1..]);
}

#[tokio::test]
async fn a_ring_that_is_lost_costs_the_retry_nothing_but_time() {
    let api = Api::start_with(&[("REDIS_URL", "redis://127.0.0.1:1")]).await;
    let acme = api.tenant("acme").await;
    acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    let event = acme.receive(&connection, &["3EB0"]).await[0];
    fail(&api, event).await;

    post_nothing(&acme, &format!("/api/webhooks/events/{event}/retry"))
        .await
        .ok();
    let due = eventually(5 * SECOND, async || {
        let mut conn = api.conn().await;
        claim::claim_due(&mut conn, 1, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .pop()
    });
    assert_eq!(due.await.id, event);
}

#[tokio::test]
async fn a_total_is_counted_to_ten_thousand_and_no_further() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let insert = format!(
        r#"INSERT INTO whatsapp_webhook_events (id, client_id, webhook_id, source_id, event_type,
               message_id, chat, "from", "to", message_type, content, metadata, "timestamp", status)
           SELECT gen_random_uuid(), {}, '{webhook}', gen_random_uuid(), 'message',
               'M' || n, '', '', '', 'text', '', '{{}}', now(), 'delivered'
           FROM generate_series(1, 10001) n"#,
        acme.id
    );
    api.conn().await.batch_execute(&insert).await.unwrap();
    let path = format!("/api/webhooks/{webhook}/events");
    let last = acme.get(&format!("{path}?offset=10000")).await.ok();
    assert_eq!(
        (&last["total"], &last["total_is_capped"], &last["count"]),
        (&json!(10_000), &json!(true), &json!(1))
    );
    assert_eq!(last["events"][0]["message_id"], "M1");
}

#[tokio::test]
async fn events_are_filtered_and_pages_keep_to_the_filter() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    let events = acme.receive(&connection, &["A", "B", "C", "D"]).await;
    for (event, hour) in events.iter().zip(1..) {
        fail(&api, *event).await;
        let at = format!(
            "UPDATE whatsapp_webhook_events SET created_at = '2026-11-23T0{hour}:00:00Z' WHERE id = '{event}'"
        );
        api.conn().await.batch_execute(&at).await.unwrap();
    }
    let pending = acme.receive(&connection, &["E"]).await[0];

    let path = format!("/api/webhooks/{webhook}/events");
    let list = async |query: &str| {
        let page = acme.get(&format!("{path}?{query}")).await.ok();
        let found: Vec<Uuid> = page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| id(&event["id"]))
            .collect();
        assert_eq!(page["total"], found.len(), "{query}");
        found
    };
    assert_eq!(list("status=pending").await, [pending]);
    assert_eq!(list("status=failed").await.len(), 4);
    assert!(list("status=delivered").await.is_empty());
    assert_eq!(list("message_id=B").await, [events[1]]);
    assert!(list("message_id=b").await.is_empty());
    let day = |hour: u8| format!("2026-11-23T0{hour}:00:00Z");
    let span = format!("since={}&until={}", day(2), day(4));
    assert_eq!(list(&span).await, [events[2], events[1]]);
    assert_eq!(list(&format!("{span}&message_id=C")).await, [events[2]]);
    assert!(list(&format!("{span}&status=pending")).await.is_empty());
    // What no calendar of PostgreSQL's has.
    assert_eq!(list("since=-200000-01-01T00:00:00Z").await.len(), 5);
    assert!(list("until=-200000-01-01T00:00:00Z").await.is_empty());
    assert!(list("since=%2B200000-01-01T00:00:00Z").await.is_empty());

    let failed = format!("{path}?status=failed&limit=3");
    let first = acme.get(&failed).await.ok();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = acme.get(&format!("{failed}&cursor={cursor}")).await.ok();
    assert_eq!(id(&second["events"][0]["id"]), events[0]);
    assert_eq!(
        (&second["count"], &second["total"], &second["next_cursor"]),
        (&json!(1), &json!(4), &json!(null))
    );

    for (query, field) in [
        (format!("status=pending&cursor={cursor}"), "cursor"),
        (format!("cursor={cursor}"), "cursor"),
        ("status=lost".to_owned(), "status"),
        ("message_id=".to_owned(), "message_id"),
        ("message_id=%00".to_owned(), "message_id"),
        ("since=yesterday".to_owned(), "since"),
        (format!("since={}&until={}", day(4), day(4)), "until"),
        ("offset=10001".to_owned(), "offset"),
        (format!("status=failed&offset=1&cursor={cursor}"), "offset"),
    ] {
        let refused = acme.get(&format!("{path}?{query}")).await.problem(400);
        assert_eq!(refused["errors"][0]["field"], field, "{query}");
    }
}
