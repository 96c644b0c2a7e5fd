//! `Idempotency-Key`, on every POST but that of sending, which has a way of its own.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use domain::record::Outcome;
use queue::Listener;
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::{Database, RedisDatabase, Server, Servers, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::described;
use crate::dispatcher::{claim_rung, deliver, fail, record};
use crate::gateway::{Gateway, TYPED};
use crate::process::{request, service};
use crate::sessions::connected;
use crate::world::{Answer, Api, NUMBER, Tenant, URL, id};

const KEY: &str = "Idempotency-Key";
const LIMIT: Duration = Duration::from_secs(10);

async fn under(tenant: &Tenant<'_>, key: &str, path: &str, body: &Value) -> Answer {
    let request = tenant.request(Method::POST, path);
    Answer::of(request.header(KEY, key).json(body)).await
}

/// The first one's answer once more, and said to be it.
fn check_again(first: &Answer, again: &Answer) {
    assert!((200..300).contains(&first.status), "{first:?}");
    assert_eq!(again.status, first.status, "{again:?}");
    assert_eq!(again.bytes, first.bytes);
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(first.header("idempotency-replayed"), "");
}

async fn sql(api: &Api, text: &str) {
    api.conn().await.batch_execute(text).await.unwrap();
}

async fn count(database: &Database, text: &str) -> i64 {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }
    let row: QueryResult<Row> = diesel::sql_query(text)
        .get_result(&mut database.connect().await)
        .await;
    row.unwrap().count
}

async fn keys(database: &Database) -> i64 {
    count(database, "SELECT count(*) FROM idempotency_keys").await
}

#[test]
fn every_post_takes_a_key() {
    let document = api::openapi::document();
    let posts = described::operations(&document).filter(|(_, method, _)| *method == "post");
    for (path, _, operation) in posts {
        let parameters = operation["parameters"].as_array().unwrap();
        let takes = parameters.iter().any(|parameter| parameter["name"] == KEY);
        let responses = operation["responses"].as_object().unwrap();
        let says = ["409", "422"].map(|status| responses.contains_key(status));
        assert_eq!((takes, says), (true, [true, true]), "{path}");
    }
}

#[tokio::test]
async fn a_webhook_is_registered_and_its_secret_rotated_once() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let register = "/api/webhooks/register";
    let body = json!({"phone_number": NUMBER, "webhook_url": URL});
    let first = under(&acme, "r", register, &body).await;
    assert_eq!(first.status, 201);
    let webhook = id(&first.json()["webhook"]["id"]);
    let path = format!("/api/webhooks/{webhook}");
    acme.patch(&path, json!({"max_retries": 7})).await.ok();
    check_again(&first, &under(&acme, "r", register, &body).await);
    assert_eq!(acme.get(&path).await.ok()["webhook"]["max_retries"], 7);

    let rotate = format!("{path}/secret/rotate");
    let first = under(&acme, "s", &rotate, &json!({})).await;
    check_again(&first, &under(&acme, "s", &rotate, &json!({})).await);
    let present = acme.get(&format!("{path}/secret")).await.ok();
    assert_eq!(present, first.ok());
    let other = under(&acme, "t", &rotate, &json!({})).await.ok();
    assert_ne!(other, first.ok());
    // An answer outlives what it tells of.
    acme.delete(&path).await.ok();
    check_again(&first, &under(&acme, "s", &rotate, &json!({})).await);
}

#[tokio::test]
async fn a_sample_a_retry_and_a_replay_send_nothing_a_second_time() {
    let api = Api::start_with(&[("WEBHOOK_TIMEOUT", "1")]).await;
    let acme = api.tenant("acme").await;
    let webhook = format!("/api/webhooks/{}", acme.webhook(NUMBER).await);
    let connection = acme.connection(NUMBER).await;
    let [event] = acme.receive(&connection, &["M"]).await[..] else {
        panic!("one event")
    };
    fail(&api, event).await;
    let shown = format!("/api/webhooks/events/{event}");
    // Each of them makes the event one to be delivered, and then it is delivered or fails.
    for (path, body, is_delivered) in [
        (format!("{shown}/retry"), json!(null), true),
        (
            format!("{webhook}/replay"),
            json!({"status": "delivered"}),
            false,
        ),
        (
            format!("{webhook}/dead-letters/replay"),
            json!({"since": "2026-01-01T00:00:00Z"}),
            true,
        ),
    ] {
        let first = under(&acme, "k", &path, &body).await;
        let pending = acme.get(&shown).await.ok()["event"]["status"].clone();
        assert_eq!(pending, "pending", "{path}");
        // What is replayed flows when it is its turn.
        sql(
            &api,
            "UPDATE whatsapp_webhook_events SET parked = NULL, next_retry_at = now()",
        )
        .await;
        match is_delivered {
            true => deliver(&api, event).await,
            false => fail(&api, event).await,
        }
        let settled = acme.get(&shown).await.ok();
        check_again(&first, &under(&acme, "k", &path, &body).await);
        assert_eq!(acme.get(&shown).await.ok(), settled, "{path}");
        sql(&api, "DELETE FROM idempotency_keys").await;
    }

    let test = format!("{webhook}/test");
    let first = under(&acme, "k", &test, &json!({"type": "message"})).await;
    assert_eq!(first.status, 202);
    let again = under(&acme, "k", &test, &json!({"type": "message"})).await;
    check_again(&first, &again);
    let events = acme.get(&format!("{webhook}/events")).await.ok();
    assert_eq!(events["total"], 2);
}

#[tokio::test]
async fn a_session_is_connected_closed_and_logged_out_once() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let _gateway = Gateway::start(&api);
    let user = Uuid::new_v4();
    let path = |what: &str| format!("/api/whatsapp/{what}");
    let connect = json!({"user_id": user, "phone_number": NUMBER, "pairing": "code"});
    let first = under(&acme, "c", &path("connect"), &connect).await;
    assert_eq!(first.ok()["pairing_code"], TYPED);
    connected(&api, &acme, user).await;
    check_again(&first, &under(&acme, "c", &path("connect"), &connect).await);

    let of = json!({"user_id": user});
    let status = format!("/api/whatsapp/status/{user}");
    for (end, reached) in [("disconnect", "disconnected"), ("logout", "logged_out")] {
        let first = under(&acme, end, &path(end), &of).await;
        assert_eq!(first.ok()["status"], reached);
        connected(&api, &acme, user).await;
        check_again(&first, &under(&acme, end, &path(end), &of).await);
        assert_eq!(acme.get(&status).await.ok()["status"], "connected");
    }
}

#[tokio::test]
async fn a_file_is_uploaded_once_and_another_type_makes_it_another() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    // More than the body of any other call may have.
    let file = vec![7; 2 * 1024 * 1024];
    let upload = async |mimetype: &str, file: &[u8]| {
        let request = acme.request(Method::POST, "/api/media").header(KEY, "k");
        let request = request.header("Content-Type", mimetype);
        Answer::of(request.body(file.to_vec())).await
    };
    let first = upload("image/png", &file).await;
    assert_eq!(first.json()["media"]["size"], file.len());
    // More often than there is room for at once.
    for _ in 0..10 {
        check_again(&first, &upload("image/png", &file).await);
    }
    upload("image/jpeg", &file).await.problem(422);
    upload("image/png", &file[1..]).await.problem(422);
    let uploads = "SELECT count(*) FROM whatsapp_uploads";
    assert_eq!(count(&api.database, uploads).await, 1);
}

#[tokio::test]
async fn a_key_stands_for_one_request_of_one_client() {
    let api = Api::start().await;
    let (acme, other) = (api.tenant("acme").await, api.tenant("other").await);
    let webhook = acme.webhook(NUMBER).await;
    let path = format!("/api/webhooks/{webhook}/secret/rotate");
    let body = json!({"overlap_seconds": 60});
    let first = under(&acme, "k", &path, &body).await;
    first.ok();
    for (path, body) in [
        (path.clone(), json!({"overlap_seconds": 61})),
        (format!("{path}?a=b"), body.clone()),
        (format!("/api/webhooks/{webhook}/test"), body.clone()),
    ] {
        let problem = under(&acme, "k", &path, &body).await.problem(422);
        assert_eq!(problem["type"], "urn:recado:problem:idempotency-key-used");
    }
    check_again(&first, &under(&acme, "k", &path, &body).await);

    let theirs = other.webhook(NUMBER).await;
    let their_path = format!("/api/webhooks/{theirs}/secret/rotate");
    let answer = under(&other, "k", &their_path, &body).await;
    assert_ne!(answer.ok(), first.ok());
    under(&other, "k", &path, &body).await.problem(422);
    under(&other, "l", &path, &body).await.problem(404);

    for bad in ["", "two words", &"k".repeat(256)] {
        assert_eq!(under(&acme, bad, &path, &body).await.field(), KEY, "{bad}");
    }
    under(&acme, &"k".repeat(255), &path, &body).await.ok();
}

#[tokio::test]
async fn of_many_at_once_on_two_instances_one_is_done() {
    let one = Api::start().await;
    let two = Api::start_with(&[
        ("DATABASE_URL", one.database.url()),
        ("REDIS_URL", one.redis.url()),
    ])
    .await;
    let acme = one.tenant("acme").await;
    let path = format!("/api/webhooks/{}/secret", acme.webhook(NUMBER).await);
    let rotate = format!("{path}/rotate");
    for key in ["a", "b", "c", "d", "e"] {
        let all = (0..16).map(async |n: usize| {
            let request = [&one, &two][n % 2].request(Method::POST, &rotate);
            let request = request.bearer_auth(acme.token.expose_secret());
            Answer::of(request.header(KEY, key)).await
        });
        let all = futures_util::future::join_all(all).await;
        let (done, refused): (Vec<_>, _) = all.iter().partition(|answer| answer.status == 200);
        for refused in refused {
            check_under_way(refused);
        }
        let present = acme.get(&path).await.ok();
        assert!(done.iter().all(|answer| answer.ok() == present));
        let firsts = done
            .iter()
            .filter(|answer| answer.header("idempotency-replayed").is_empty());
        assert_eq!(firsts.count(), 1);
    }
}

fn check_under_way(refused: &Answer) {
    let problem = refused.problem(409);
    assert_eq!(problem["type"], "urn:recado:problem:under-way");
    assert_eq!(refused.header("retry-after"), "1");
}

#[tokio::test]
async fn what_a_client_waits_for_no_more_goes_on_and_is_the_answer_when_it_asks_again() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = format!("/api/webhooks/{}", acme.webhook(NUMBER).await);
    let test = format!("{webhook}/test");
    let head = format!(
        "POST {test} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n{KEY}: k\r\nContent-Length: 0\r\n\r\n",
        acme.token.expose_secret()
    );
    let address = api.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    let held = claim_rung(&api).await;
    // It is reset, which ends what else is done for it.
    connection.set_zero_linger().unwrap();
    drop(connection);

    let again = async || Answer::of(acme.request(Method::POST, &test).header(KEY, "k")).await;
    check_under_way(&again().await);
    // Another request is refused for what it is, whatever the first one does.
    let other = under(&acme, "k", &test, &json!({"type": "message"})).await;
    let problem = other.problem(422);
    assert_eq!(problem["type"], "urn:recado:problem:idempotency-key-used");

    record(&api, &held, Outcome::Delivered).await;
    let answer = eventually(LIMIT, async || {
        let answer = again().await;
        (answer.status != 409).then_some(answer)
    })
    .await;
    assert_eq!(answer.header("idempotency-replayed"), "true");
    assert_eq!(id(&answer.ok()["event_id"]), held.event.id);
    let events = acme.get(&format!("{webhook}/events")).await.ok();
    assert_eq!(events["total"], 1);
}

#[tokio::test]
async fn what_takes_long_keeps_its_claim() {
    let api = Api::start_with(&[("WEBHOOK_TIMEOUT", "60000")]).await;
    let acme = api.tenant("acme").await;
    let test = format!("/api/webhooks/{}/test", acme.webhook(NUMBER).await);
    let nothing = json!({});
    let first = under(&acme, "k", &test, &nothing);
    let rest = async {
        let held = claim_rung(&api).await;
        let soon = "UPDATE idempotency_keys SET claimed_until = now() + interval '20 seconds'";
        sql(&api, soon).await;
        let renewed = "SELECT count(*) FROM idempotency_keys
            WHERE claimed_until > now() + interval '25 seconds'";
        let renewed = async || count(&api.database, renewed).await == 1;
        eventually(2 * LIMIT, renewed).await;
        record(&api, &held, Outcome::Delivered).await;
    };
    let (first, ()) = tokio::join!(first, rest);
    check_again(&first, &under(&acme, "k", &test, &nothing).await);
}

#[tokio::test]
async fn what_an_instance_that_died_had_begun_is_taken_over_when_its_claim_is_over() {
    let (database, redis) = (Database::create().await, RedisDatabase::acquire().await);
    let mut dying = service(database.url(), redis.url()).start().await;
    let post = async |process: &testkit::Process, path: &str, body: &Value| {
        let request = request(&process.url("PORT"), Method::POST, path);
        Answer::of(request.header(KEY, "k").json(body)).await
    };
    let body = json!({"phone_number": NUMBER, "webhook_url": URL});
    let register = request(&dying.url("PORT"), Method::POST, "/api/webhooks/register");
    let webhook = Answer::of(register.json(&body)).await.json()["webhook"].clone();
    let test = format!("/api/webhooks/{}/test", id(&webhook["id"]));
    let mut rung = Listener::new(redis.client());
    let nothing = json!({});
    tokio::select! {
        answer = post(&dying, &test, &nothing) => panic!("{answer:?}"),
        rung = rung.wait(1, LIMIT) => assert_eq!(rung.unwrap().len(), 1),
    }
    dying.kill().await;

    let next = service(database.url(), redis.url()).env("WEBHOOK_TIMEOUT", "1");
    let next = next.start().await;
    check_under_way(&post(&next, &test, &nothing).await);
    let over = "UPDATE idempotency_keys SET claimed_until = now()";
    database.connect().await.batch_execute(over).await.unwrap();
    let first = post(&next, &test, &nothing).await;
    assert_eq!(first.status, 202);
    check_again(&first, &post(&next, &test, &nothing).await);
}

#[tokio::test]
async fn a_refusal_is_not_kept_and_what_was_wrong_may_be_put_right() {
    let api = Api::start_with(&[("GATEWAY_WAIT", "50"), ("RATE_LIMIT_PER_CLIENT", "1000")]).await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let path = format!("/api/webhooks/{webhook}");
    let replay = format!("{path}/replay");
    let none = format!("/api/webhooks/{}/replay", Uuid::new_v4());
    let connect = "/api/whatsapp/connect";
    let session = json!({"user_id": Uuid::new_v4(), "phone_number": "5511955556666"});

    acme.patch(&path, json!({"is_active": false})).await.ok();
    for (path, body, status) in [
        (&*replay, json!({"status": "pending"}), 400),
        (&*none, json!({}), 404),
        (&*replay, json!({}), 409),
        (connect, session, 503),
    ] {
        under(&acme, "k", path, &body).await.problem(status);
        assert_eq!(keys(&api.database).await, 0, "{status}");
    }
    let large = acme.request(Method::POST, &replay).header(KEY, "k");
    Answer::of(large.body(vec![b' '; 1024 * 1024 + 1]))
        .await
        .problem(413);
    let nobody = api.request(Method::POST, &replay).header(KEY, "k");
    Answer::of(nobody).await.problem(401);
    assert_eq!(keys(&api.database).await, 0);

    acme.patch(&path, json!({"is_active": true})).await.ok();
    let first = under(&acme, "k", &replay, &json!({})).await;
    check_again(&first, &under(&acme, "k", &replay, &json!({})).await);
}

#[tokio::test]
async fn while_postgresql_is_away_a_request_under_a_key_is_refused_and_may_be_repeated() {
    let servers = Servers::start().await;
    let database = servers.database().await;
    let process = service(database.url(), servers.redis_url()).start().await;
    let register = async || {
        let request = request(&process.url("PORT"), Method::POST, "/api/webhooks/register");
        let body = json!({"phone_number": NUMBER, "webhook_url": URL});
        Answer::of(request.header(KEY, "k").json(&body)).await
    };
    servers.crash(Server::Postgres).await;
    let refused = register().await;
    refused.problem(503);
    assert!(!refused.header("retry-after").is_empty());
    servers.resume(Server::Postgres).await;
    let first = register().await;
    assert_eq!(first.status, 201);
    check_again(&first, &register().await);
}

#[tokio::test]
async fn no_secret_of_an_answer_or_a_request_can_be_read_in_the_table() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let _gateway = Gateway::start(&api);
    let body = json!({"phone_number": NUMBER, "webhook_url": URL,
        "custom_headers": {"X-Token": "hunter2"}});
    let first = under(&acme, "r", "/api/webhooks/register", &body).await;
    assert!(
        first.json()["secret"]
            .as_str()
            .unwrap()
            .starts_with("whsec_")
    );
    let body = json!({"user_id": Uuid::new_v4(), "phone_number": NUMBER, "pairing": "code"});
    let answer = under(&acme, "c", "/api/whatsapp/connect", &body).await;
    assert_eq!(answer.ok()["pairing_code"], TYPED);
    let readable = format!(
        "SELECT count(*) FROM idempotency_keys AS k, unnest(ARRAY['whsec_', 'hunter2', '{TYPED}']) AS secret
         WHERE position(secret::bytea IN body || fingerprint) > 0 OR position(secret IN k::text) > 0"
    );
    assert_eq!(keys(&api.database).await, 2);
    assert_eq!(count(&api.database, &readable).await, 0);
}
