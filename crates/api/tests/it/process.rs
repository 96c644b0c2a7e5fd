//! The service as a process: how it starts, and how it ends.

use std::time::{Duration, Instant};

use domain::connection::Connection;
use reqwest::Method;
use serde_json::json;
use testkit::{Database, Process, Program, Receiver, RedisDatabase, Signal, eventually, free_port};
use uuid::Uuid;

use crate::world::{Answer, KEY, NUMBER, http};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const TOKEN: &str = "dev-token-of-the-tests";

/// The service, with a development client that has [`TOKEN`].
pub(crate) fn service(database_url: &str, redis_url: &str) -> Program {
    settings(database_url, redis_url).port("PORT")
}

fn settings(database_url: &str, redis_url: &str) -> Program {
    Program::service("recado-api")
        .env("DATABASE_URL", database_url)
        .env("REDIS_URL", redis_url)
        .env("ENCRYPTION_KEYS", KEY)
        .env("DEV_CLIENT_TOKEN", TOKEN)
}

pub(crate) fn request(url: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
    http()
        .request(method, format!("{url}{path}"))
        .bearer_auth(TOKEN)
}

#[tokio::test]
async fn a_bad_or_missing_variable_is_one_line_that_names_it_and_exit_64() {
    let good = || settings("postgres://127.0.0.1:1/recado", "redis://127.0.0.1:1");
    let production = || good().env("APP_ENV", "production");
    for (program, expected) in [
        (good().env("DATABASE_URL", ""), "DATABASE_URL: is not set"),
        (good().env("DATABASE_URL", "mysql://h/d"), "DATABASE_URL: "),
        (good().env("REDIS_URL", ""), "REDIS_URL: is not set"),
        (good().env("PORT", "http"), "PORT: not a valid u16"),
        (
            good().env("GATEWAY_WAIT", "8s"),
            "GATEWAY_WAIT: not a valid u64",
        ),
        (
            good().env("ENCRYPTION_KEYS", "hunter2"),
            "ENCRYPTION_KEYS: ",
        ),
        (
            good().env("WEBHOOK_ALLOWED_CIDRS", "loopback"),
            "WEBHOOK_ALLOWED_CIDRS: ",
        ),
        (
            good().env("APP_ENV", "staging"),
            "APP_ENV: must be development or production",
        ),
        (
            production(),
            "DEV_CLIENT_TOKEN: must not be set in production",
        ),
        (
            production()
                .env("DEV_CLIENT_TOKEN", "")
                .env("ENCRYPTION_KEYS", ""),
            "ENCRYPTION_KEYS: is not set",
        ),
    ] {
        let output = program.run().await;
        assert_eq!(
            output.status.code(),
            Some(64),
            "{expected}: {}",
            output.stderr
        );
        assert!(
            output.stderr.contains(expected),
            "{expected}: {}",
            output.stderr
        );
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
        assert!(!output.stderr.contains("hunter2") && !output.stderr.contains(TOKEN));
    }
}

#[tokio::test]
async fn development_gets_its_client_at_the_first_start_and_keeps_it() {
    let (database, redis) = (Database::create().await, RedisDatabase::acquire().await);
    let mut process = service(database.url(), redis.url()).start().await;
    let me = async |url: &str| Answer::of(request(url, Method::GET, "/me")).await.ok();
    let first = me(&process.url("PORT")).await;
    assert_eq!(first["name"], "dev");

    assert!(process.stop().await.success());
    process.start_again().await;
    assert_eq!(me(&process.url("PORT")).await, first);
    assert!(!process.logs().contains(TOKEN));
}

#[tokio::test]
async fn a_request_in_hand_is_answered_after_sigterm_and_new_ones_are_not_taken() {
    let (database, redis) = (Database::create().await, RedisDatabase::acquire().await);
    // No gateway is there: the request is in hand for as long as it would wait for one.
    let program = service(database.url(), redis.url()).env("GATEWAY_WAIT", "2000");
    let mut process = program.start().await;
    let (url, ops) = (process.url("PORT"), process.url("OPS_PORT"));
    let user = Uuid::new_v4();
    let connect = request(&url, Method::POST, "/api/whatsapp/connect")
        .json(&json!({"user_id": user, "phone_number": NUMBER}));

    let in_hand = tokio::spawn(Answer::of(connect));
    let is_in_hand = async || {
        let mut conn = database.pool().get().await.unwrap();
        Connection::of_user(&mut conn, 1, user)
            .await
            .unwrap()
            .is_some()
    };
    eventually(LIMIT, is_in_hand).await;
    process.signal(Signal::TERM);
    let ready = eventually(LIMIT, async || {
        let answer = Answer::of(http().get(format!("{ops}/readyz"))).await;
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(ready.await.json()["status"], "stopping");
    let refused = async || http().get(format!("{url}/health")).send().await.is_err();
    eventually(LIMIT, refused).await;

    assert!(!in_hand.is_finished());
    in_hand.await.unwrap().problem(503);
    assert!(process.wait().await.success());
    assert!(process.logs().contains("stopped"));
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let (database, redis) = (Database::create().await, RedisDatabase::acquire().await);
    let mut process = service(database.url(), redis.url()).start().await;
    let client = http();
    let health = client.get(format!("{}/health", process.url("PORT")));
    health.send().await.unwrap().bytes().await.unwrap();

    let start = Instant::now();
    assert!(process.stop().await.success());
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    drop(client);
}

#[tokio::test]
async fn the_access_log_has_the_route_and_no_personal_data() {
    let (database, redis) = (Database::create().await, RedisDatabase::acquire().await);
    let program = service(database.url(), redis.url()).env("LOG_FORMAT", "json");
    let mut process = program.start().await;
    let url = process.url("PORT");
    let body = json!({"phone_number": NUMBER, "webhook_url": "https://recado.invalid/who"});
    let register = request(&url, Method::POST, "/api/webhooks/register").json(&body);
    assert_eq!(
        Answer::of(register.header("User-Agent", "an-agent"))
            .await
            .status,
        201
    );
    let listed = request(&url, Method::GET, "/api/webhooks/list?limit=7");
    Answer::of(listed).await.ok();
    process.stop().await;

    let logs = process.logs();
    let line = logs
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|line| line["message"] == "answered" && line["status"] == 201)
        .unwrap_or_else(|| panic!("{logs}"));
    let span = &line["spans"][0];
    assert_eq!(span["route"], "/api/webhooks/register");
    assert_eq!(
        (&span["method"], &span["client"]),
        (&json!("POST"), &json!(1))
    );
    span["id"].as_str().unwrap().parse::<Uuid>().unwrap();
    for private in [TOKEN, NUMBER, "recado.invalid", "an-agent", "limit=7"] {
        assert!(!logs.contains(private), "{private}");
    }
}

async fn asks(process: &Process, header: &str, value: &str) {
    let request = http().get(format!("{}/health", process.url("PORT")));
    let answer = Answer::of(request.header(header, value)).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_number_in_a_log_line_is_masked_unless_a_developer_wants_to_see_it() {
    let (database, redis) = (Database::create().await, RedisDatabase::acquire().await);
    for (shown, format) in [(false, "text"), (false, "json"), (true, "json")] {
        let mut process = service(database.url(), redis.url())
            .env("LOG_PAYLOADS", shown)
            .env("LOG_FORMAT", format)
            .env("RUST_LOG", "debug")
            .start()
            .await;
        asks(&process, "X-Request-Id", "from:5511999999999").await;
        process.stop().await;
        let logs = process.logs();
        assert_eq!(logs.contains("from:5511999999999"), shown, "{logs}");
        assert_eq!(logs.contains("from:5511*******99"), !shown, "{logs}");
        assert_eq!(logs.contains("with parameters"), shown, "{logs}");
    }
}

#[tokio::test]
async fn a_request_is_a_span_in_its_callers_trace() {
    let (database, redis) = (Database::create().await, RedisDatabase::acquire().await);
    let collector = Receiver::start().await;
    let mut process = service(database.url(), redis.url())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url(""))
        .start()
        .await;
    let (trace, parent) = (*b"\x0a-trace-of-16-\xff\x01", *b"\xff-parent");
    let traceparent = format!("00-{}-{}-01", hex(&trace), hex(&parent));
    asks(&process, "traceparent", &traceparent).await;
    assert!(process.stop().await.success());

    let sent = collector.received_at("/v1/traces");
    for part in [
        b"recado-api",
        b"request".as_slice(),
        b"/health",
        &trace,
        &parent,
    ] {
        let mut bodies = sent.iter().map(|request| &request.body);
        assert!(
            bodies.any(|body| body.windows(part.len()).any(|bytes| bytes == part)),
            "{part:?}: {sent:?}"
        );
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_collector_that_is_away_keeps_nobody_and_is_told_of_once() {
    let (database, redis) = (Database::create().await, RedisDatabase::acquire().await);
    let mut process = service(database.url(), redis.url())
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://127.0.0.1:{}", free_port()),
        )
        .env("OTEL_BSP_SCHEDULE_DELAY", 50)
        .start()
        .await;
    let lost = "spans could not be sent";
    eventually(LIMIT, async || {
        asks(&process, "X-Request-Id", "again").await;
        process.logs().contains(lost)
    })
    .await;
    for _ in 0..10 {
        asks(&process, "X-Request-Id", "again").await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let asked = Instant::now();
    assert!(process.stop().await.success());
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(
        process.logs().matches(lost).count(),
        1,
        "{}",
        process.logs()
    );
}
