//! Keys of requests: whose turn it is, and what is kept.

use diesel_async::AsyncPgConnection;
use domain::client::Client;
use domain::idempotency::{Answer, Claim, Request, fingerprint, tidy};
use domain::keyring::Keyring;
use domain::sealed::{ANSWER, FINGERPRINT};

use crate::world::World;

const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
/// With what divides the parts of a row's name.
const KEY: &str = "order/1";

fn keyring(text: &str) -> Keyring {
    Keyring::parse(text).unwrap()
}

fn asked(body: &[u8]) -> Vec<u8> {
    fingerprint(&[b"POST", b"/", body])
}

fn answer(body: &str) -> Answer {
    Answer {
        status: 201,
        content_type: Some("application/json".to_owned()),
        body: body.into(),
    }
}

async fn claim(conn: &mut AsyncPgConnection, client: &Client) -> Option<Claim> {
    Claim::insert(conn, &keyring(OLD), client.id, KEY, &asked(b"a"))
        .await
        .unwrap()
}

async fn find(conn: &mut AsyncPgConnection, client: &Client) -> Option<Request> {
    Request::find(conn, client.id, KEY).await.unwrap()
}

async fn kept(conn: &mut AsyncPgConnection, client: &Client) -> Option<Answer> {
    let request = find(conn, client).await.unwrap();
    request.answer(&keyring(OLD)).unwrap()
}

/// The claims that there are have run out.
async fn run_out(world: &World) {
    world
        .sql("UPDATE idempotency_keys SET claimed_until = now()")
        .await;
}

#[test]
fn requests_are_told_apart_by_all_their_parts() {
    let other = fingerprint(&[b"POST", b"/a", b""]);
    assert_ne!(asked(b"a"), other);
    assert_ne!(asked(b"a"), asked(b"b"));
    assert_eq!(asked(b"a"), asked(b"a"));
}

#[tokio::test]
async fn a_key_is_claimed_once_and_by_each_client_for_itself() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let held = claim(&mut conn, &world.client).await.unwrap();
    assert!(claim(&mut conn, &world.client).await.is_none());
    let other = Client::insert(&mut conn, "other").await.unwrap();
    assert!(find(&mut conn, &other).await.is_none());
    assert!(claim(&mut conn, &other).await.is_some());

    let request = find(&mut conn, &world.client).await.unwrap();
    assert!(request.is_of(&keyring(OLD), &asked(b"a")).unwrap());
    assert!(!request.is_of(&keyring(OLD), &asked(b"b")).unwrap());
    assert_eq!(kept(&mut conn, &world.client).await, None);
    assert!(request.take_over(&mut conn).await.unwrap().is_none());

    let done = answer("{}");
    held.keep(&mut conn, &keyring(OLD), &done).await.unwrap();
    assert_eq!(kept(&mut conn, &world.client).await, Some(done));
    assert_eq!(kept(&mut conn, &other).await, None);
}

#[tokio::test]
async fn a_key_that_is_released_is_as_one_that_was_never_used() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let held = claim(&mut conn, &world.client).await.unwrap();
    held.release(&mut conn).await.unwrap();
    assert!(find(&mut conn, &world.client).await.is_none());
    assert!(claim(&mut conn, &world.client).await.is_some());
}

#[tokio::test]
async fn a_claim_that_ran_out_is_taken_over_by_one_and_its_late_holder_writes_nothing() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let first = claim(&mut conn, &world.client).await.unwrap();
    run_out(&world).await;
    let seen = find(&mut conn, &world.client).await.unwrap();
    let second = seen.take_over(&mut conn).await.unwrap().unwrap();
    assert!(seen.take_over(&mut conn).await.unwrap().is_none());
    run_out(&world).await;
    let seen = find(&mut conn, &world.client).await.unwrap();
    let third = seen.take_over(&mut conn).await.unwrap().unwrap();

    run_out(&world).await;
    first.renew(&mut conn).await.unwrap();
    let late = answer("late");
    first.keep(&mut conn, &keyring(OLD), &late).await.unwrap();
    second.release(&mut conn).await.unwrap();
    assert_eq!(kept(&mut conn, &world.client).await, None);

    third.renew(&mut conn).await.unwrap();
    let seen = find(&mut conn, &world.client).await.unwrap();
    assert!(seen.take_over(&mut conn).await.unwrap().is_none());
    let done = answer("in time");
    third.keep(&mut conn, &keyring(OLD), &done).await.unwrap();
    // What is done is nobody's to do.
    let seen = find(&mut conn, &world.client).await.unwrap();
    assert!(seen.take_over(&mut conn).await.unwrap().is_none());
    assert_eq!(seen.answer(&keyring(OLD)).unwrap(), Some(done));
}

#[tokio::test]
async fn nothing_can_be_read_in_the_table_and_all_is_sealed_anew() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let held = claim(&mut conn, &world.client).await.unwrap();
    let secret = answer(r#"{"secret":"whsec_x"}"#);
    held.keep(&mut conn, &keyring(OLD), &secret).await.unwrap();
    let in_the_clear = world
        .count(
            "SELECT count(*) FROM idempotency_keys
             WHERE position('whsec_'::bytea IN body) > 0 OR length(fingerprint) = 32",
        )
        .await;
    assert_eq!(in_the_clear, 0);

    let both = keyring(&format!("{NEW},{OLD}"));
    for place in [FINGERPRINT, ANSWER] {
        let rotated = place.rotate(&mut conn, &both).await.unwrap();
        assert_eq!((rotated.count, rotated.left), (1, 0));
        assert!(rotated.failures.is_empty(), "{rotated:?}");
    }
    let request = find(&mut conn, &world.client).await.unwrap();
    assert!(request.is_of(&keyring(NEW), &asked(b"a")).unwrap());
    let opened = request.answer(&keyring(NEW)).unwrap();
    assert_eq!(opened, Some(secret));
    assert!(request.answer(&keyring(OLD)).is_err());
}

#[tokio::test]
async fn a_key_is_forgotten_a_day_after_its_request_was_done_or_given_up() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    for (key, ago) in [("now", "0"), ("23", "23 hours"), ("25", "25 hours")] {
        let done = Claim::insert(&mut conn, &keyring(OLD), world.client.id, key, b"")
            .await
            .unwrap()
            .unwrap();
        if key != "now" {
            let done = done.keep(&mut conn, &keyring(OLD), &answer("{}")).await;
            done.unwrap();
        }
        let age = format!(
            "UPDATE idempotency_keys SET claimed_until = claimed_until - interval '{ago}'
             WHERE key = '{key}'"
        );
        world.sql(&age).await;
    }
    assert_eq!(tidy(&mut conn).await.unwrap(), 1);
    for (key, is_there) in [("now", true), ("23", true), ("25", false)] {
        let found = Request::find(&mut conn, world.client.id, key).await;
        assert_eq!(found.unwrap().is_some(), is_there, "{key}");
    }
}
