use std::time::Duration;

use chrono::Utc;
use domain::event::Event;
use domain::webhook::Changes;
use testkit::{Answer, free_port};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::world::{Hook, SOON, World, start};

/// Seconds until the event is due.
fn pause(event: &Event) -> f64 {
    let due = event.next_retry_at.expect("it is due at some time");
    (due - Utc::now()).as_seconds_f64()
}

#[tokio::test]
async fn a_retry_keeps_the_id_and_has_a_time_and_number_of_its_own() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    world
        .receiver
        .answers("/in", [Answer::status(500).body("oh"), Answer::ok()]);
    let running = world.dispatcher().await;

    let id = world.send(&hook, 1).await[0];
    let failed = world.attempted(id, 1).await;
    assert_eq!(failed.status, "pending");
    assert_eq!(
        failed.error.as_deref(),
        Some("answered 500 Internal Server Error")
    );
    assert_eq!(failed.response.as_deref(), Some("oh"));
    assert!((3.0..=5.5).contains(&pause(&failed)), "{failed:?}");
    assert_eq!(world.webhook(&hook).await.failure_count, 1);

    world.make_due(&[id]).await;
    world.all(&[id], "delivered").await;
    let [first, second] = &world.receiver.received()[..] else {
        panic!("two requests");
    };
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(second.header("x-webhook-attempt"), Some("2"));
    assert_ne!(
        first.header("x-webhook-timestamp"),
        second.header("x-webhook-timestamp")
    );
    assert_eq!(first.body, second.body);
    second.verify(hook.secret()).unwrap();
    assert_eq!(world.webhook(&hook).await.failure_count, 0);
    running.stop().await;
}

#[tokio::test]
async fn the_pauses_double_and_the_last_attempt_makes_a_dead_letter() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    world.receiver.answer("/in", Answer::status(503));
    let running = world.dispatcher().await;
    let id = world.send(&hook, 1).await[0];
    for (attempt, base) in [(1, 5.0), (2, 10.0)] {
        let event = world.attempted(id, attempt).await;
        assert!(
            (base * 0.7..=base * 1.1).contains(&pause(&event)),
            "{event:?}"
        );
        world.make_due(&[id]).await;
    }
    world.all(&[id], "failed").await;
    let reason = world.dead_letter(id).await.unwrap();
    assert_eq!(
        reason,
        "the last attempt of 3 failed: answered 503 Service Unavailable"
    );
    let numbers: Vec<i32> = world.attempts(id).await.iter().map(|a| a.attempt).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(world.event(id).await.next_retry_at, None);
    running.stop().await;
}

#[tokio::test]
async fn gone_deactivates_the_webhook_at_once() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    world.receiver.answer("/in", Answer::status(410));
    let running = world.dispatcher().await;
    let id = world.send(&hook, 1).await[0];
    world.all(&[id], "failed").await;
    assert_eq!(
        world.dead_letter(id).await.as_deref(),
        Some("the receiver answered 410 Gone")
    );
    assert!(!world.webhook(&hook).await.is_active);
    assert_eq!(world.receiver.received().len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    world
        .receiver
        .answer("/in", Answer::status(429).header("Retry-After", "120"));
    let running = world.dispatcher().await;
    let id = world.send(&hook, 1).await[0];
    let event = world.attempted(id, 1).await;
    assert!((118.0..=133.0).contains(&pause(&event)), "{event:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let elsewhere = world.receiver.url("/elsewhere");
    world
        .receiver
        .answer("/in", Answer::status(307).header("Location", &elsewhere));
    let running = world.dispatcher().await;
    let id = world.send(&hook, 1).await[0];
    world.attempted(id, 1).await;
    let attempt = &world.attempts(id).await[0];
    assert_eq!(
        (attempt.error_class.as_deref(), attempt.http_status),
        (Some("redirect"), Some(307))
    );
    assert!(world.receiver.received_at("/elsewhere").is_empty());
    running.stop().await;
}

#[tokio::test]
async fn every_way_to_fail_is_on_record_under_a_class_of_its_own() {
    let world = World::new().await;
    let garbage = raw_server(b"220 mail.example ESMTP\r\n").await;
    let huge_head =
        raw_server(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20)).as_bytes()).await;
    let drip = Answer::drip("x", 1000, Duration::from_millis(50));
    for (path, answer) in [
        ("/hang", Answer::hang()),
        ("/drip", drip),
        ("/close", Answer::close()),
        ("/cut", Answer::cut()),
        ("/teapot", Answer::status(418)),
    ] {
        world.receiver.answer(path, answer);
    }
    let receiver = world.receiver.address();
    let nobody = free_port();
    let cases = [
        (format!("http://{receiver}/hang"), "timeout", None),
        (format!("http://{receiver}/drip"), "timeout", Some(200)),
        (format!("http://{receiver}/close"), "closed", None),
        (format!("http://{receiver}/cut"), "body", Some(200)),
        (
            format!("http://{receiver}/teapot"),
            "http_status",
            Some(418),
        ),
        (format!("http://127.0.0.1:{nobody}/"), "connect", None),
        (format!("https://{receiver}/"), "tls", None),
        (format!("http://127.0.0.1:{garbage}/"), "protocol", None),
        (format!("http://127.0.0.1:{huge_head}/"), "protocol", None),
        ("http://nowhere.invalid/".to_owned(), "dns", None),
        ("http://10.0.0.1/".to_owned(), "address_forbidden", None),
        (
            "http://[::ffff:a9fe:a9fe]/latest".to_owned(),
            "address_forbidden",
            None,
        ),
        ("ftp://example.com/".to_owned(), "url", None),
    ];
    let running = world.impatient_dispatcher().await;
    for (url, class, status) in cases {
        let hook = world.hook_at(&url).await;
        let id = world.send(&hook, 1).await[0];
        world.attempted(id, 1).await;
        let attempt = world.attempts(id).await.remove(0);
        assert_eq!(
            (attempt.error_class.as_deref(), attempt.http_status),
            (Some(class), status),
            "{url}: {attempt:?}"
        );
        assert_eq!(attempt.error.unwrap().lines().count(), 1);
        assert_eq!(world.webhook(&hook).await.failure_count, 1);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_name_that_resolves_to_a_forbidden_address_is_not_connected_to() {
    let world = World::new().await;
    let hook = world
        .hook_at(&format!(
            "http://localhost:{}/in",
            world.receiver.address().port()
        ))
        .await;
    let mut config = world.config();
    config.sending.addresses = domain::address::AddressPolicy::default();
    let running = start(config).await;
    let id = world.send(&hook, 1).await[0];
    world.attempted(id, 1).await;
    let attempt = &world.attempts(id).await[0];
    assert_eq!(attempt.error_class.as_deref(), Some("address_forbidden"));
    assert!(world.receiver.received().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn outside_of_development_only_https_is_sent_to() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let mut config = world.config();
    config.sending.https_only = true;
    let running = start(config).await;
    let id = world.send(&hook, 1).await[0];
    let event = world.attempted(id, 1).await;
    assert_eq!(
        event.error.as_deref(),
        Some("the URL must begin with https://")
    );
    assert!(world.receiver.received().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn an_endless_answer_is_cut_off_and_its_status_counts() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let endless = Answer::drip(&"x\0é".repeat(2000), u64::MAX, Duration::ZERO);
    world.receiver.answer("/in", endless);
    let running = world.dispatcher().await;
    let id = world.send(&hook, 1).await[0];
    world.all(&[id], "delivered").await;
    let response = world.event(id).await.response.unwrap();
    assert!(response.starts_with("x\u{fffd}é") && (4090..=4096).contains(&response.len()));
    running.stop().await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_opened_uses_up_no_attempt() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let mut config = world.config();
    let other = "other:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
    config.keyring = domain::keyring::Keyring::parse(other).unwrap();
    let running = start(config).await;
    let id = world.send(&hook, 1).await[0];
    testkit::eventually(SOON, async || pause(&world.event(id).await) > 40.0).await;
    assert_eq!(world.event(id).await.attempt_count, 0);
    assert!(world.attempts(id).await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn one_events_failure_sends_no_other_webhooks_event_again() {
    let world = World::new().await;
    let (bad, good): (Hook, Hook) = (world.hook("/bad").await, world.hook("/good").await);
    world
        .change(
            &bad,
            &Changes {
                max_retries: Some(2),
                ..Changes::default()
            },
        )
        .await;
    world.receiver.answer("/bad", Answer::status(500));
    let running = world.dispatcher().await;
    let failing = world.send(&bad, 1).await[0];
    let fine = world.send(&good, 1).await[0];
    world.attempted(failing, 1).await;
    world.make_due(&[failing]).await;
    world.all(&[failing], "failed").await;
    world.all(&[fine], "delivered").await;
    assert_eq!(world.receiver.received_at("/bad").len(), 2);
    assert_eq!(world.receiver.received_at("/good").len(), 1);
    running.stop().await;
}

/// A server that answers every connection with these bytes and leaves it open.
async fn raw_server(answer: &[u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = answer.to_vec();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(&answer).await;
            open.push(stream);
        }
    });
    port
}
