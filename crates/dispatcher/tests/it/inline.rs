//! Files within the delivery itself.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use diesel_async::SimpleAsyncConnection;
use domain::media::{Bytes32, File, Kind};
use domain::webhook::Changes;
use serde_json::Value;
use simulator::Simulator;
use testkit::{Answer, MediaHost, RawReceiver, Received, Step, eventually};
use url::Url;

use crate::world::{Hook, Running, SOON, World, start};

/// What an attempt waits for a silent media host, and for a slow one.
const SILENCE: Duration = Duration::from_secs(3);
const FETCH: Duration = Duration::from_secs(5);
/// What all else may take on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// That of a simulated WhatsApp.
async fn media_host() -> MediaHost {
    let simulator = Simulator::start(simulator::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        state: None,
    });
    MediaHost::at(simulator.await.unwrap().address())
}

async fn dispatcher(world: &World, host: &str) -> Running {
    let mut config = world.config();
    config.media.url = Url::parse(host).unwrap().join("/").unwrap();
    start(config).await
}

/// A webhook that takes files of up to so many bytes.
async fn inlining(world: &World, bytes: i32) -> Hook {
    let hook = world.hook("/in").await;
    let changes = Changes {
        inline_media_bytes: Some(bytes),
        ..Changes::default()
    };
    world.change(&hook, &changes).await;
    hook
}

async fn batching(world: &World, hook: &Hook, max_events: i32, max_wait_ms: i32) {
    let changes = Changes {
        batch_max_events: Some(Some(max_events)),
        batch_max_wait_ms: Some(Some(max_wait_ms)),
        ..Changes::default()
    };
    world.change(hook, &changes).await;
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 % 251) as u8).collect()
}

/// A file that no media host has.
fn nowhere() -> File {
    File {
        kind: Kind::Image,
        direct_path: "/v/a".to_owned(),
        media_key: Bytes32([1; 32]),
        file_enc_sha256: Bytes32([2; 32]),
        file_sha256: Bytes32([3; 32]),
        size: 1000,
        mimetype: None,
        file_name: None,
    }
}

fn media(event: &Value) -> &Value {
    &event["metadata"]["media"]
}

/// The file within an event.
fn inlined(event: &Value) -> Vec<u8> {
    assert_eq!(media(event)["inline"], Value::Null);
    let text = media(event)["base64"].as_str();
    BASE64_STANDARD
        .decode(text.unwrap_or_else(|| panic!("no file: {event}")))
        .unwrap()
}

/// Sends an event for the file, and returns what is said of it in place of the file.
async fn absence(world: &World, hook: &Hook, file: &File) -> String {
    let before = world.receiver.received().len();
    let id = world.send_files(hook, &[file]).await[0];
    let event = world.attempted(id, 1).await;
    assert_eq!(event.status, "delivered");
    let request = world.receiver.received().remove(before);
    request.verify(hook.secret()).unwrap();
    let body = request.json();
    assert_eq!(media(&body)["base64"], Value::Null);
    media(&body)["inline"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_file_is_in_the_signed_body_of_every_attempt_and_stored_nowhere() {
    let (world, host) = (World::new().await, media_host().await);
    let hook = inlining(&world, 1000).await;
    world
        .receiver
        .answers("/in", [Answer::status(500), Answer::ok()]);
    let running = dispatcher(&world, &host.url()).await;
    let content = content(1000);
    let file = host.put(Kind::Image, &content).await;
    let id = world.send_files(&hook, &[&file]).await[0];
    world.attempted(id, 1).await;
    world.make_due(&[id]).await;
    world.all(&[id], "delivered").await;

    let stored = world.event(id).await.metadata;
    let requests = world.receiver.received();
    assert_eq!(requests.len(), 2);
    for request in requests {
        request.verify(hook.secret()).unwrap();
        let mut body = request.json();
        assert_eq!(inlined(&body), content);
        let shown = body["metadata"]["media"].as_object_mut().unwrap();
        shown.remove("base64");
        assert_eq!(body["metadata"], stored);
    }
    running.stop().await;
}

#[tokio::test]
async fn without_the_option_nobody_asks_for_a_file() {
    let (world, host) = (World::new().await, RawReceiver::start([Step::Read]).await);
    let hook = world.hook("/in").await;
    let running = dispatcher(&world, &host.url("http")).await;
    let id = world.send_files(&hook, &[&nowhere()]).await[0];
    world.all(&[id], "delivered").await;
    let body = world.receiver.received().remove(0).json();
    assert_eq!(body["metadata"], world.event(id).await.metadata);
    assert_eq!(host.requests(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_file_above_the_webhooks_bound_is_too_large_and_not_asked_for() {
    let (world, host) = (World::new().await, RawReceiver::start([Step::Read]).await);
    let hook = inlining(&world, 999).await;
    let running = dispatcher(&world, &host.url("http")).await;
    assert_eq!(absence(&world, &hook, &nowhere()).await, "too_large");
    assert_eq!(host.requests(), 0);
    running.stop().await;
}

#[tokio::test]
async fn what_whatsapp_or_we_keep_no_more_is_gone() {
    let (world, host) = (World::new().await, media_host().await);
    let hook = inlining(&world, 1000).await;
    let running = dispatcher(&world, &host.url()).await;
    let file = host.put(Kind::Video, b"a film").await;
    host.forget(&file, 403).await;
    assert_eq!(absence(&world, &hook, &file).await, "gone");

    let kept = host.put(Kind::Video, b"another").await;
    let id = world.commit_files(&hook, &[&kept]).await[0];
    let delete = "DELETE FROM whatsapp_messages";
    world.conn().await.batch_execute(delete).await.unwrap();
    world.make_due(&[id]).await;
    world.all(&[id], "delivered").await;
    let body = world.receiver.received().remove(1).json();
    assert_eq!(media(&body)["inline"], "gone");
    running.stop().await;
}

#[tokio::test]
async fn a_file_that_is_not_the_one_that_was_sent_or_not_to_be_had_is_unavailable() {
    let (world, host) = (World::new().await, media_host().await);
    let hook = inlining(&world, 1000).await;
    let running = dispatcher(&world, &host.url()).await;
    let file = host.put(Kind::Audio, &content(1000)).await;
    host.fail_with(503).await;
    assert_eq!(absence(&world, &hook, &file).await, "unavailable");
    host.fail_with(0).await;
    host.corrupt(&file).await;
    assert_eq!(absence(&world, &hook, &file).await, "unavailable");
    running.stop().await;
}

/// Of an answer with the file of [`nowhere`], and what it goes on with.
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1018\r\n\r\n";

fn slowly() -> Step {
    Step::drip([0; 1018], Duration::from_millis(100))
}

/// Delivers an event with a file of a host that does these things; how long that took.
async fn kept_waiting(steps: impl IntoIterator<Item = Step>) -> Duration {
    let (world, host) = (World::new().await, RawReceiver::start(steps).await);
    let hook = inlining(&world, 1000).await;
    let running = dispatcher(&world, &host.url("http")).await;
    let began = Instant::now();
    assert_eq!(absence(&world, &hook, &nowhere()).await, "unavailable");
    let took = began.elapsed();
    assert_eq!(host.requests(), 1);
    running.stop().await;
    took
}

#[tokio::test]
async fn a_media_host_that_stays_silent_holds_no_delivery_up_for_long() {
    let took = kept_waiting([Step::Read, Step::Listen]).await;
    assert!(took < SILENCE + SLACK, "{took:?}");
}

#[tokio::test]
async fn nor_does_one_that_gives_a_file_byte_by_byte() {
    let took = kept_waiting([Step::Read, Step::send(HEAD), slowly()]).await;
    assert!(took < FETCH + SLACK, "{took:?}");
}

#[tokio::test]
async fn a_media_host_that_is_away_is_waited_for_by_few_and_not_by_all() {
    is_waited_for_by_few([Step::Read, Step::Listen]).await;
}

#[tokio::test]
async fn so_is_one_that_does_not_get_done() {
    is_waited_for_by_few([Step::Read, Step::send(HEAD), slowly()]).await;
}

async fn is_waited_for_by_few(steps: impl IntoIterator<Item = Step>) {
    let host = RawReceiver::start(steps).await;
    let world = World::new().await;
    let hook = inlining(&world, 1000).await;
    let running = dispatcher(&world, &host.url("http")).await;
    let ids = world.send_files(&hook, &[&nowhere(); 60]).await;
    world.all(&ids, "delivered").await;
    for request in world.receiver.received() {
        assert_eq!(media(&request.json())["inline"], "unavailable");
    }
    // As many as the webhook has in flight, and those that find out whether it is back.
    let asked = host.requests();
    assert!((3..30).contains(&asked), "{asked}");
    running.stop().await;
}

fn events(request: &Received) -> Vec<Value> {
    request.json()["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_batch_carries_the_files_of_its_events() {
    let (world, host) = (World::new().await, media_host().await);
    let hook = inlining(&world, 1000).await;
    batching(&world, &hook, 3, 5000).await;
    let running = dispatcher(&world, &host.url()).await;
    let (one, two) = (content(1000), content(17));
    let files = [
        &host.put(Kind::Image, &one).await,
        &host.put(Kind::Sticker, &two).await,
        &host.put(Kind::Document, &content(1001)).await,
    ];
    let ids = world.send_files(&hook, &files).await;
    world.all(&ids, "delivered").await;
    let requests = world.receiver.received();
    assert_eq!(requests.len(), 1);
    requests[0].verify(hook.secret()).unwrap();
    for event in events(&requests[0]) {
        match media(&event)["kind"].as_str().unwrap() {
            "image" => assert_eq!(inlined(&event), one),
            "sticker" => assert_eq!(inlined(&event), two),
            _ => assert_eq!(media(&event)["inline"], "too_large"),
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn files_count_among_the_bytes_of_a_batch() {
    let (world, host) = (World::new().await, media_host().await);
    let hook = inlining(&world, 1_048_576).await;
    batching(&world, &hook, 100, 5000).await;
    let running = dispatcher(&world, &host.url()).await;
    // More than a mebibyte as base64.
    let content = content(800_000);
    let file = host.put(Kind::Document, &content).await;
    let ids = world.send_files(&hook, &[&file; 3]).await;
    world.all(&ids, "delivered").await;
    let requests = world.receiver.received();
    assert_eq!(requests.len(), 3);
    for request in requests {
        let [event] = &events(&request)[..] else {
            panic!("one event");
        };
        assert!(inlined(event) == content);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_no_file_and_gives_its_event_back() {
    let host = RawReceiver::start([Step::Read, Step::Listen]).await;
    let world = World::new().await;
    let hook = inlining(&world, 1000).await;
    let running = dispatcher(&world, &host.url("http")).await;
    let id = world.send_files(&hook, &[&nowhere()]).await[0];
    eventually(SOON, async || host.requests() == 1).await;
    running.stop().await;
    let event = world.event(id).await;
    assert_eq!((event.status.as_str(), event.attempt_count), ("pending", 0));
    assert_eq!(world.receiver.received().len(), 0);

    let again = dispatcher(&world, "http://127.0.0.1:9").await;
    world.make_due(&[id]).await;
    world.all(&[id], "delivered").await;
    let body = world.receiver.received().remove(0).json();
    assert_eq!(media(&body)["inline"], "unavailable");
    again.stop().await;
}
