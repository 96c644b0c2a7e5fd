//! Processes, by the receiver that is one.

use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use testkit::{Process, Program, free_port};

struct Controlled {
    process: Process,
    url: String,
    client: Client,
}

impl Controlled {
    async fn start() -> Self {
        runtime::tls::install_provider();
        let port = free_port();
        let process = Program::new("recado-receiver")
            .arg(format!("--listen=127.0.0.1:{port}"))
            .arg("--secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            .ready_at(port, "/_control/received")
            .start()
            .await;
        let client = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        Self {
            process,
            url: format!("http://127.0.0.1:{port}"),
            client,
        }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (u16, String) {
        let request = self
            .client
            .request(method, format!("{}{path}", self.url))
            .json(&body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn received(&self, since: u64) -> Vec<Value> {
        let path = format!("/_control/received?since={since}");
        let (status, body) = self.call(Method::GET, &path, Value::Null).await;
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    }
}

#[tokio::test]
async fn the_receiver_shows_what_came_and_whether_it_was_signed() {
    let receiver = Controlled::start().await;
    receiver.call(Method::POST, "/a", json!({"n": 1})).await;
    let signed = receiver
        .client
        .post(format!("{}/b", receiver.url))
        .header("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
        .header("webhook-timestamp", "1614265330")
        .header(
            "webhook-signature",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        )
        .header("X-Webhook-Event-ID", "e-1")
        .body(r#"{"test": 2432232314}"#);
    assert_eq!(signed.send().await.unwrap().status(), 200);

    let all = receiver.received(0).await;
    assert_eq!(all.len(), 2);
    assert_eq!(
        (&all[0]["path"], &all[0]["body"]),
        (&json!("/a"), &json!(r#"{"n":1}"#))
    );
    assert_eq!(all[0]["signature_ok"], false);
    assert_eq!(
        receiver.received(1).await[0]["webhook_id"],
        "msg_p5jXN8AQM9LWM0D4loKWxJek"
    );
    assert_eq!(all[1]["event_id"], "e-1");
    assert_eq!(all[0]["schema_error"], Value::Null, "it is no delivery");
    let why = all[1]["schema_error"].as_str().unwrap();
    assert!(why.contains("required property"), "{why}");
    assert_eq!(all[1]["signature_ok"], false, "signed, but years ago");
    let received_at = all[1]["received_at"].as_str().unwrap();
    assert_eq!(
        received_at.len(),
        "2026-11-24T10:00:00.000000Z".len(),
        "{received_at}"
    );

    receiver
        .call(Method::DELETE, "/_control/received", Value::Null)
        .await;
    assert!(receiver.received(0).await.is_empty());
}

#[tokio::test]
async fn the_receiver_behaves_as_it_is_told_over_http() {
    let receiver = Controlled::start().await;
    let told = json!({"path": "/x", "status": 503, "times": 2, "headers": {"Retry-After": "1"}});
    assert_eq!(
        receiver
            .call(Method::POST, "/_control/behaviour", told)
            .await
            .0,
        204
    );
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(receiver.call(Method::POST, "/x", Value::Null).await.0);
    }
    assert_eq!(seen, [503, 503, 200]);

    let told = json!({"path": "/x", "ending": {"drip": {"times": 2, "pause_ms": 1}}, "body": "ab"});
    assert_eq!(
        receiver
            .call(Method::POST, "/_control/behaviour", told)
            .await
            .0,
        204
    );
    assert_eq!(
        receiver.call(Method::POST, "/x", Value::Null).await,
        (200, "abab".to_owned())
    );
    receiver
        .call(Method::DELETE, "/_control/behaviour", Value::Null)
        .await;
    assert_eq!(
        receiver.call(Method::POST, "/x", Value::Null).await,
        (200, "ok".to_owned())
    );

    let wrong = json!({"path": "/x", "statsu": 503});
    let (status, text) = receiver
        .call(Method::POST, "/_control/behaviour", wrong)
        .await;
    assert!(status == 400 && text.contains("statsu"), "{status} {text}");
}

#[tokio::test]
async fn the_sink_counts_and_keeps_nothing() {
    let receiver = Controlled::start().await;
    for path in ["/sink", "/sink/7"] {
        assert_eq!(
            receiver.call(Method::POST, path, json!({"n": 1})).await.0,
            200
        );
    }
    let (_, count) = receiver
        .call(Method::GET, "/_control/sunk", Value::Null)
        .await;
    assert_eq!(count, r#"{"count":2}"#);
    assert!(receiver.received(0).await.is_empty());
}

#[tokio::test]
async fn a_process_is_paused_killed_and_started_again_where_it_was() {
    let mut receiver = Controlled::start().await;
    receiver.process.freeze().await;
    let quick = receiver
        .client
        .get(format!("{}/x", receiver.url))
        .timeout(Duration::from_millis(300));
    assert!(quick.send().await.unwrap_err().is_timeout());
    receiver.process.thaw();
    assert_eq!(receiver.call(Method::POST, "/x", Value::Null).await.0, 200);

    receiver.process.kill().await;
    assert!(!receiver.process.runs());
    receiver.process.start_again().await;
    assert!(
        receiver.received(0).await.is_empty(),
        "it is another process"
    );
    assert_eq!(receiver.process.stop().await.code(), Some(0));
    let shown = receiver.process.logs().matches("listens on").count();
    assert_eq!(shown, 2, "one log for both");
}

#[tokio::test]
#[should_panic(expected = "ended before it was ready: exit status: 2")]
async fn a_process_that_ends_too_early_is_shown_with_its_logs() {
    Program::new("recado-receiver")
        .arg("--nonsense")
        .ready_at(1, "/")
        .start()
        .await;
}
