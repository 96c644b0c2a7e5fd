use diesel_async::SimpleAsyncConnection;
use domain::record::Outcome;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::dispatcher::{claim, dead, deliver, record};
use crate::world::{Api, NUMBER, Tenant};

/// An attempt made `minutes_ago`, which took so long and ended so.
async fn attempt(
    api: &Api,
    tenant: &Tenant<'_>,
    webhook: Uuid,
    minutes_ago: f64,
    ms: i32,
    end: &str,
) {
    let (status, class) = match end {
        "200" => ("200", "NULL"),
        "timeout" => ("NULL", "'timeout'"),
        status => (status, "'http_status'"),
    };
    let insert = format!(
        "INSERT INTO whatsapp_delivery_attempts (id, event_id, client_id, webhook_id, attempt, started_at,
             duration_ms, http_status, error_class, superseded)
         SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
                 || substr(replace(gen_random_uuid()::text, '-', ''), 13))::uuid,
             gen_random_uuid(), {}, '{webhook}', 1, at, {ms}, {status}, {class}, false
         FROM (SELECT now() - make_interval(secs => {minutes_ago} * 60) AS at) AS t",
        tenant.id
    );
    api.conn().await.batch_execute(&insert).await.unwrap();
}

async fn stats(tenant: &Tenant<'_>, webhook: Uuid, window: &str) -> Value {
    let path = format!("/api/webhooks/{webhook}/stats?window={window}");
    tenant.get(&path).await.ok()["stats"].clone()
}

#[tokio::test]
async fn attempts_are_counted_by_their_outcome_with_their_latency_and_in_a_series() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    for ms in 1..=100 {
        attempt(&api, &acme, webhook, 5.5, ms, "200").await;
    }
    for (minutes_ago, end) in [
        (20.5, "500"),
        (20.5, "503"),
        (20.5, "timeout"),
        (59.0, "500"),
    ] {
        attempt(&api, &acme, webhook, minutes_ago, 1000, end).await;
    }
    // Outside of the window, and another webhook's.
    attempt(&api, &acme, webhook, 61.0, 1, "200").await;
    let other = acme.webhook("4915100000000").await;
    attempt(&api, &acme, other, 1.0, 1, "200").await;

    let seen = stats(&acme, webhook, "1h").await;
    assert_eq!(
        seen["attempts"],
        json!({
            "total": 104, "delivered": 100, "failed": 4,
            "by_error_class": {"http_status": 3, "timeout": 1},
            "by_http_status": {"200": 100, "500": 2, "503": 1, "none": 1},
        })
    );
    assert_eq!(seen["success_rate"], 100.0 / 104.0);
    assert_eq!(
        seen["latency_ms"],
        json!({"p50": 52, "p95": 99, "p99": 1000})
    );
    assert_eq!(seen["sampled"], false);

    let series = seen["series"].as_array().unwrap();
    assert_eq!(series.len(), 60);
    assert_eq!(series[0]["at"], seen["from"]);
    let of = |minutes_ago: usize| series[59 - minutes_ago].clone();
    let counts = |bucket: &Value| {
        ["attempts", "delivered", "failed", "p95_ms"].map(|name| bucket[name].clone())
    };
    assert_eq!(
        counts(&of(5)),
        [json!(100), json!(100), json!(0), json!(95)]
    );
    assert_eq!(counts(&of(20)), [json!(3), json!(0), json!(3), json!(1000)]);
    assert_eq!(counts(&of(30)), [json!(0), json!(0), json!(0), json!(null)]);
    let total: i64 = series
        .iter()
        .map(|bucket| bucket["attempts"].as_i64().unwrap())
        .sum();
    assert_eq!(total, 104);

    // Without a window it is the hour, and a longer one has more.
    let path = format!("/api/webhooks/{webhook}/stats");
    assert_eq!(
        acme.get(&path).await.ok()["stats"]["attempts"],
        seen["attempts"]
    );
    assert_eq!(stats(&acme, webhook, "7d").await["attempts"]["total"], 105);
}

#[tokio::test]
async fn events_are_counted_by_what_they_wait_for() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    assert_json_snapshot!("nothing_yet", redact(stats(&acme, webhook, "1m").await));

    let connection = acme.connection(NUMBER).await;
    let names = [
        "delivered",
        "dead",
        "retry",
        "claimed",
        "fresh",
        "parked",
        "limited",
    ];
    let events = acme.receive(&connection, &names).await;
    deliver(&api, events[0]).await;
    record(&api, &claim(&api, events[1]).await, dead()).await;
    record(&api, &claim(&api, events[2]).await, Outcome::RetryIn(60.0)).await;
    claim(&api, events[3]).await;
    let park = format!(
        "UPDATE whatsapp_webhook_events SET next_retry_at = NULL, parked = 'backlog' WHERE id = '{}';
         UPDATE whatsapp_webhook_events SET next_retry_at = NULL, parked = 'rate_limit' WHERE id = '{}'",
        events[5], events[6]
    );
    api.conn().await.batch_execute(&park).await.unwrap();

    let seen = stats(&acme, webhook, "15m").await;
    assert_eq!(
        seen["events"],
        json!({
            "pending": 5, "in_flight": 1, "due": 2, "parked": {"backlog": 1, "rate_limit": 1},
            "dead_letters": 1, "capped": false,
        })
    );
    assert_eq!(
        seen["attempts"]["by_http_status"],
        json!({"200": 1, "500": 2})
    );
}

/// Without the times, which are another at each run.
fn redact(mut stats: Value) -> Value {
    stats["from"] = json!("[time]");
    stats["to"] = json!("[time]");
    stats["series"] = json!("[series]");
    stats
}

#[tokio::test]
async fn more_attempts_than_are_looked_at_are_a_sample() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let many = format!(
        "INSERT INTO whatsapp_delivery_attempts (id, event_id, client_id, webhook_id, attempt, started_at,
             duration_ms, superseded)
         SELECT (lpad(to_hex((extract(epoch FROM now() - interval '90 s') * 1000)::bigint), 12, '0')
                 || substr(md5(n::text), 13))::uuid,
             gen_random_uuid(), {}, '{webhook}', 1, now(), n % 100, false
         FROM generate_series(1, 6000) n",
        acme.id
    );
    api.conn().await.batch_execute(&many).await.unwrap();
    let seen = stats(&acme, webhook, "1h").await;
    assert_eq!(
        (&seen["sampled"], &seen["attempts"]["total"]),
        (&json!(true), &json!(5000))
    );
    assert_eq!(seen["success_rate"], 1.0);
}

#[tokio::test]
async fn a_window_that_is_wrong_is_named() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let path = format!("/api/webhooks/{}/stats", acme.webhook(NUMBER).await);
    for query in [
        "window=",
        "window=1",
        "window=0m",
        "window=31d",
        "window=1w",
    ] {
        assert_eq!(
            acme.get(&format!("{path}?{query}")).await.field(),
            "window",
            "{query}"
        );
    }
    assert_eq!(acme.get(&format!("{path}?since=1h")).await.field(), "since");
}
