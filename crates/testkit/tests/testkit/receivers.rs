use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use reqwest::Client;
use testkit::{Answer, Receiver, eventually};

const LONG: Duration = Duration::from_secs(10);

fn client() -> Client {
    runtime::tls::install_provider();
    Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn what_came_is_recorded_whole() {
    let receiver = Receiver::start().await;
    let request = client()
        .post(receiver.url("/hook?x=1"))
        .header("X-Webhook-Attempt", "2");
    let answer = request.body(r#"{"a":1}"#).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let received = receiver.wait_for(1, LONG).await.remove(0);
    assert_eq!((received.sequence, received.path.as_str()), (1, "/hook"));
    assert_eq!(received.header("x-webhook-attempt"), Some("2"));
    assert_eq!(received.json()["a"], 1);
    assert!(received.verify("whsec_AAAA").is_err());
}

#[tokio::test]
async fn a_delivery_that_is_not_as_published_fails_its_test() {
    let receiver = Receiver::start().await;
    let request = client()
        .post(receiver.url("/hook"))
        .header("X-Webhook-Event-ID", "e-1");
    request.body(r#"{"a":1}"#).send().await.unwrap();
    let received = receiver.wait_for(1, LONG).await.remove(0);
    assert!(received.schema_error.is_some());
    let end = catch_unwind(AssertUnwindSafe(|| drop(receiver)));
    assert!(end.is_err());
}

#[tokio::test]
async fn a_script_is_followed_and_its_last_answer_stays() {
    let receiver = Receiver::start().await;
    let limited = Answer::status(429)
        .header("Retry-After", "7")
        .body("slow down");
    receiver.answers("/hook", [Answer::status(500), limited, Answer::status(204)]);
    let client = client();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let answer = client.post(receiver.url("/hook")).send().await.unwrap();
        let retry_after = answer
            .headers()
            .get("retry-after")
            .map(|value| value.to_str().unwrap().to_owned());
        seen.push((answer.status().as_u16(), retry_after));
    }
    assert_eq!(
        seen,
        [
            (500, None),
            (429, Some("7".to_owned())),
            (204, None),
            (204, None)
        ]
    );
    assert_eq!(
        client
            .post(receiver.url("/other"))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(receiver.received_at("/hook").len(), 4);
}

#[tokio::test]
async fn bad_answers_are_as_bad_as_ordered() {
    let receiver = Receiver::start().await;
    let client = client();
    let post = |path| {
        client
            .post(receiver.url(path))
            .timeout(Duration::from_millis(700))
            .send()
    };

    receiver.answer("/hang", Answer::hang());
    assert!(post("/hang").await.unwrap_err().is_timeout());
    receiver.answer(
        "/slow",
        Answer::status(503).delay(Duration::from_millis(300)),
    );
    let start = Instant::now();
    assert_eq!(post("/slow").await.unwrap().status(), 503);
    assert!(start.elapsed() >= Duration::from_millis(300));
    receiver.answer("/close", Answer::close());
    let error = post("/close").await.unwrap_err();
    assert!(!error.is_timeout() && !error.is_connect(), "{error:?}");
    receiver.answer("/cut", Answer::cut());
    let cut = post("/cut").await.unwrap();
    assert_eq!(cut.status(), 200);
    assert!(cut.bytes().await.is_err());
    receiver.answer("/drip", Answer::drip("x", 3, Duration::from_millis(100)));
    let start = Instant::now();
    assert_eq!(post("/drip").await.unwrap().text().await.unwrap(), "xxx");
    assert!(start.elapsed() >= Duration::from_millis(300));
    receiver.answer(
        "/endless",
        Answer::drip("x", u64::MAX, Duration::from_millis(10)),
    );
    assert!(
        post("/endless")
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap_err()
            .is_timeout()
    );
}

#[tokio::test]
async fn requests_in_flight_are_counted_at_their_most() {
    let receiver = Receiver::start().await;
    receiver.answer("/slow", Answer::ok().delay(Duration::from_millis(300)));
    let client = client();
    let posts = (0..5).map(|_| client.post(receiver.url("/slow")).send());
    for answer in futures_util::future::join_all(posts).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    client.post(receiver.url("/slow")).send().await.unwrap();
    assert_eq!(receiver.most_at_once("/slow"), 5);
    eventually(LONG, async || receiver.in_flight("/slow") == 0).await;
}

#[tokio::test]
async fn a_request_that_its_client_gave_up_is_in_flight_no_more() {
    let receiver = Receiver::start().await;
    receiver.answer("/hang", Answer::hang());
    receiver.answer("/close", Answer::close());
    let post = tokio::spawn(client().post(receiver.url("/hang")).send());
    eventually(LONG, async || receiver.in_flight("/hang") == 1).await;
    post.abort();
    eventually(LONG, async || receiver.in_flight("/hang") == 0).await;
    client()
        .post(receiver.url("/close"))
        .send()
        .await
        .unwrap_err();
    eventually(LONG, async || receiver.in_flight("/close") == 0).await;
}

#[tokio::test]
async fn a_receiver_stops_and_another_takes_its_place() {
    let receiver = Receiver::start().await;
    let (address, url) = (receiver.address(), receiver.url("/hook"));
    receiver.stop().await;
    let client = client();
    eventually(LONG, async || {
        client
            .post(&url)
            .send()
            .await
            .is_err_and(|error| error.is_connect())
    })
    .await;
    let second = Receiver::listen(address).await;
    assert_eq!(client.post(&url).send().await.unwrap().status(), 200);
    assert_eq!(second.received().len(), 1);
}
