//! Trying a webhook out. The dispatcher's part is played here, on the real tables.

use diesel_async::SimpleAsyncConnection;
use domain::event_type::EventType;
use domain::record::Outcome;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::Payloads;

use crate::dispatcher::{claim_probe, claim_rung, fail, record};
use crate::world::{Answer, Api, NUMBER, id};

#[tokio::test]
async fn a_sample_is_rung_and_its_first_attempt_is_the_answer() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let path = format!("/api/webhooks/{webhook}/test");

    let dispatcher = async |outcome: Outcome| {
        let held = claim_rung(&api).await;
        let body: Value = serde_json::from_slice(&held.event.body().unwrap()).unwrap();
        record(&api, &held, outcome).await;
        (held.event, body)
    };
    // Whatever the content type, without a body.
    let nothing = Answer::of(acme.request(Method::POST, &path));
    let (answer, (event, body)) = tokio::join!(nothing, dispatcher(Outcome::Delivered));
    assert_eq!(
        answer.ok(),
        json!({
            "status": "success",
            "event_id": event.id,
            "delivered": true,
            "http_status": 200,
            "latency_ms": 12,
            "error": null,
        })
    );
    assert_eq!(event.webhook_id, webhook);
    assert_eq!(
        (&body["event"], &body["to"]),
        (&json!("test"), &json!(NUMBER))
    );
    assert_eq!(body["metadata"]["sample"], true);
    // A ring that is lost would have cost it no grace.
    assert!(event.overdue_seconds >= 0.0);

    let (answer, (event, body)) = tokio::join!(
        acme.post(&path, json!({"type": "message.reaction"})),
        dispatcher(Outcome::RetryIn(5.0))
    );
    let answer = answer.ok();
    assert_eq!(
        (
            &answer["delivered"],
            &answer["http_status"],
            &answer["error"]
        ),
        (&json!(false), &json!(500), &json!("answered 500"))
    );
    assert_eq!(body["event"], "message.reaction");
    let path = format!("/api/webhooks/events/{}", event.id);
    let shown = acme.get(&path).await.ok()["event"].clone();
    assert_eq!(
        (&shown["status"], &shown["attempt_count"]),
        (&json!("pending"), &json!(1))
    );
}

#[tokio::test]
async fn a_sample_that_nobody_attempts_in_time_is_pending() {
    let api = Api::start_with(&[("WEBHOOK_TIMEOUT", "1")]).await;
    let acme = api.tenant("acme").await;
    let path = format!("/api/webhooks/{}/test", acme.webhook(NUMBER).await);
    let answer = acme.post(&path, json!({"type": "connection.open"})).await;
    assert_eq!(answer.status, 202);
    let answer = answer.json();
    assert_eq!(answer["status"], "pending");
    let event = acme
        .get(&format!("/api/webhooks/events/{}", id(&answer["event_id"])))
        .await
        .ok()["event"]
        .clone();
    assert_eq!(
        (&event["status"], &event["event_type"]),
        (&json!("pending"), &json!("connection.open"))
    );
}

#[tokio::test]
async fn behind_an_open_circuit_a_sample_is_the_next_probe_at_once() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    for event in acme.receive(&connection, &["A", "B", "C", "D", "E"]).await {
        fail(&api, event).await;
    }
    let path = format!("/api/webhooks/{webhook}");
    assert_eq!(acme.get(&path).await.ok()["webhook"]["status"], "failed");
    // The next look is far, and others wait before the sample.
    acme.receive(&connection, &["F", "G"]).await;
    api.conn()
        .await
        .batch_execute(
            "UPDATE whatsapp_webhook_events SET next_retry_at = NULL, parked = 'circuit_open'
                 WHERE status = 'pending';
             UPDATE whatsapp_webhooks SET look_at = now() + interval '10 minutes'",
        )
        .await
        .unwrap();

    let dispatcher = async || {
        let probe = claim_probe(&api).await;
        record(&api, &probe, Outcome::ProbeFailed).await;
        probe.event
    };
    let test = format!("{path}/test");
    let (answer, probe) = tokio::join!(acme.post(&test, json!({})), dispatcher());
    let answer = answer.ok();
    assert_eq!((probe.event_type.as_str(), probe.probe), ("test", true));
    assert_eq!(id(&answer["event_id"]), probe.id);
    assert_eq!(
        (&answer["delivered"], &answer["http_status"]),
        (&json!(false), &json!(500))
    );
}

#[tokio::test]
async fn what_is_not_active_or_no_type_gets_no_sample() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let path = format!("/api/webhooks/{}", acme.webhook(NUMBER).await);
    let test = format!("{path}/test");
    for body in [
        json!({"type": "messages"}),
        json!({"type": "message.*"}),
        json!({"type": 7}),
    ] {
        assert_eq!(acme.post(&test, body).await.field(), "type");
    }
    assert_eq!(
        acme.post(&test, json!({"kind": "test"})).await.field(),
        "kind"
    );
    acme.patch(&path, json!({"is_active": false})).await.ok();
    let refused = acme.post(&test, json!({})).await;
    assert_eq!(
        refused.problem(409)["type"],
        "urn:recado:problem:no-receiver"
    );
    assert_eq!(acme.get(&format!("{path}/events")).await.ok()["total"], 0);
    acme.delete(&path).await.ok();
    acme.post(&test, json!({})).await.problem(404);
}

#[tokio::test]
async fn a_sample_of_every_type_can_be_had_and_has_the_shape_of_a_real_one() {
    let api = Api::start_with(&[("WEBHOOK_TIMEOUT", "1")]).await;
    let acme = api.tenant("acme").await;
    let webhook = format!("/api/webhooks/{}", acme.webhook(NUMBER).await);
    let path = format!("{webhook}/test");
    let tries = EventType::ALL.iter().map(async |event_type| {
        let body = json!({"type": event_type.as_str()});
        assert_eq!(acme.post(&path, body).await.status, 202);
    });
    futures_util::future::join_all(tries).await;
    let events = acme.get(&format!("{webhook}/events")).await.ok()["events"].clone();
    let payloads = Payloads::default();
    assert_eq!(events.as_array().unwrap().len(), EventType::ALL.len());
    for event in events.as_array().unwrap() {
        let path = format!("/api/webhooks/events/{}", id(&event["id"]));
        let payload = acme.get(&path).await.ok()["event"]["payload"].clone();
        let checked = payloads.check_value(&payload);
        checked.unwrap_or_else(|why| panic!("{payload}: {why}"));
    }
}
