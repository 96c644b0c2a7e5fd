//! How many requests are answered.

use std::thread::available_parallelism;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderValue;
use secrecy::ExposeSecret;
use testkit::{Server, Servers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{Answer, Api};

fn number(answer: &Answer, header: &str) -> u32 {
    let value = answer.header(header);
    let number = value.parse();
    number.unwrap_or_else(|_| panic!("{header}: {value:?} of {answer:?}"))
}

/// A refusal says when to come again, and all that others have to know.
fn check_refusal(answer: &Answer, limit: u32, by: &str) {
    let problem = answer.problem(429);
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains(by) && detail.contains(&limit.to_string()),
        "{detail}"
    );
    assert_eq!(number(answer, "ratelimit-limit"), limit);
    assert_eq!(number(answer, "ratelimit-remaining"), 0);
    assert_eq!(number(answer, "retry-after"), 1);
    assert_eq!(
        answer.header("retry-after"),
        answer.header("ratelimit-reset")
    );
}

#[tokio::test]
async fn a_client_is_limited_over_all_instances_and_no_other_with_it() {
    let one = Api::start_with(&[("RATE_LIMIT_PER_CLIENT", "2")]).await;
    let two = Api::start_with(&[
        ("RATE_LIMIT_PER_CLIENT", "2"),
        ("DATABASE_URL", one.database.url()),
        ("REDIS_URL", one.redis.url()),
    ])
    .await;
    let (acme, other) = (one.tenant("acme").await, one.tenant("other").await);
    let mut answers = Vec::new();
    for instance in [&one, &two, &one, &two, &one, &two, &one, &two] {
        let request = instance.request(Method::GET, "/api/webhooks/list");
        answers.push(Answer::of(request.bearer_auth(acme.token.expose_secret())).await);
    }
    let (refused, answered): (Vec<_>, _) = answers.iter().partition(|answer| answer.status == 429);
    // A second's worth, and what came back meanwhile.
    assert!((2..=5).contains(&answered.len()), "{}", answered.len());
    for answer in &answered {
        answer.ok();
        assert_eq!(number(answer, "ratelimit-limit"), 2);
        assert!(number(answer, "ratelimit-remaining") <= 1);
    }
    for answer in &refused {
        check_refusal(answer, 2, "client");
    }
    other.get("/api/webhooks/list").await.ok();
}

#[tokio::test]
async fn an_address_is_limited_whoever_asks_and_behind_a_proxy_it_is_the_callers() {
    let api = Api::start_with(&[
        ("RATE_LIMIT_PER_ADDRESS", "2"),
        ("TRUSTED_PROXIES", "127.0.0.0/8"),
    ])
    .await;
    let ask = async |from: &'static str, path: &str| {
        let request = api.request(Method::GET, path);
        let from = HeaderValue::from_static(from);
        Answer::of(request.header("x-forwarded-for", from)).await
    };
    let mut last = ask("198.51.100.7", "/api/webhooks/list").await;
    last.problem(401);
    for _ in 0..8 {
        last = ask("203.0.113.9, 198.51.100.7", "/health").await;
    }
    check_refusal(&last, 2, "address");
    check_refusal(&ask("198.51.100.7", "/no/such/route").await, 2, "address");
    ask("198.51.100.8", "/health").await.ok();
}

#[tokio::test]
async fn without_redis_each_instance_counts_for_itself() {
    let servers = Servers::start_only(Server::Redis).await;
    let api = Api::start_with(&[
        ("RATE_LIMIT_PER_CLIENT", "2"),
        ("REDIS_URL", servers.redis_url()),
    ])
    .await;
    let acme = api.tenant("acme").await;
    servers.stop(Server::Redis).await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(acme.get("/me").await);
    }
    answers[0].ok();
    check_refusal(&answers[7], 2, "client");
}

#[tokio::test]
async fn without_a_limit_nothing_is_said_of_one() {
    let api = Api::start().await;
    let answer = api.tenant("acme").await.get("/me").await;
    answer.ok();
    assert_eq!(answer.header("ratelimit-limit"), "");
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_others_end() {
    let bound = available_parallelism().unwrap().get();
    let api = Api::start_with(&[("MAX_CONNECTIONS", &bound.to_string())]).await;
    let address = api.url.strip_prefix("http://").unwrap();
    let mut held = Vec::new();
    for _ in 0..bound {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let request = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
        connection.write_all(request).await.unwrap();
        assert!(connection.read(&mut [0; 1024]).await.unwrap() > 0);
        held.push(connection);
    }
    let health = Answer::of(api.request(Method::GET, "/health"));
    let mut health = std::pin::pin!(health);
    let early = timeout(Duration::from_millis(500), &mut health).await;
    assert!(early.is_err(), "{early:?}");
    drop(held);
    health.await.ok();
}
