//! Requests as such: what they are called, how large and how slow they may be.

use std::time::Duration;

use reqwest::Method;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::world::{Answer, Api};

#[tokio::test]
async fn a_request_keeps_its_name_and_gets_one_if_it_has_none() {
    let api = Api::start().await;
    let asked = async |id: &str| {
        let request = api
            .request(Method::GET, "/health")
            .header("X-Request-Id", id);
        Answer::of(request).await.header("x-request-id").to_owned()
    };
    assert_eq!(asked("deploy-7/probe:1").await, "deploy-7/probe:1");
    for odd in ["", "a b", "a\tb", "\"x\"", &"x".repeat(129)] {
        let named = asked(odd).await;
        assert!(named.parse::<Uuid>().is_ok(), "{odd:?}: {named}");
    }
    // Refusals have one, too.
    let refused = Answer::of(api.request(Method::GET, "/me")).await;
    refused.problem(401);
    assert!(refused.header("x-request-id").parse::<Uuid>().is_ok());
}

/// The first line of what a raw request is answered.
async fn answered(api: &Api, head: &str) -> String {
    let address = api.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
    // It may close while more is sent.
    let _ = read.await.expect("it is answered in time");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn what_is_too_long_or_too_slow_is_refused() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let token = acme.token.expose_secret();
    let long = "x".repeat(200_000);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let post = format!(
        "POST /api/webhooks/register HTTP/1.1\r\nHost: x\r\n{bearer}Content-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{"
    );
    for (request, status) in [
        (format!("GET /me?{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "431"),
        (
            format!("GET /me HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"),
            "431",
        ),
        (
            format!(
                "GET /me HTTP/1.1\r\nHost: x\r\n{}\r\n",
                "X-Many: 1\r\n".repeat(200)
            ),
            "431",
        ),
        // A head that has no end, and a body that doesn't come.
        ("GET /me HTTP/1.1\r\nHost: x\r\n".to_owned(), "408"),
        (post, "408"),
        ("\u{1} nonsense\r\n\r\n".to_owned(), "400"),
    ] {
        let answer = answered(&api, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}
