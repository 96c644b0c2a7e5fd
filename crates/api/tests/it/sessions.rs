use domain::connection::{Code, Connection, Status};
use insta::assert_json_snapshot;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::gateway::{CODE, Gateway, TYPED};
use crate::world::{Answer, Api, NUMBER, Tenant, id, lease, redacted};

const CONNECT: &str = "/api/whatsapp/connect";

fn of(user: Uuid) -> Value {
    json!({"user_id": user, "phone_number": NUMBER})
}

/// Asks for a session and lets its code be scanned; returns the session's id.
pub(crate) async fn connected(api: &Api, tenant: &Tenant<'_>, user: Uuid) -> Uuid {
    let answer = tenant.post(CONNECT, of(user)).await.ok();
    let session = id(&answer["session_id"]);
    let mut conn = api.conn().await;
    let hold = lease(&mut conn, session).await;
    Connection::identify(&mut conn, hold, "5511988887777:1@s.whatsapp.net", None)
        .await
        .unwrap();
    let hold = lease(&mut conn, session).await;
    Connection::transition(&mut conn, hold, Status::Connected, None)
        .await
        .unwrap();
    session
}

#[tokio::test]
async fn connecting_answers_with_the_gateways_first_code() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let _gateway = Gateway::start(&api);
    let user = Uuid::new_v4();

    let answer = acme.post(CONNECT, of(user)).await.ok();
    assert_json_snapshot!("connecting", redacted(answer.clone()));
    let url = answer["qr_code"].as_str().unwrap().to_owned();
    let picture = acme.get(&format!("/api/whatsapp/qr/{user}")).await;
    assert_eq!(picture.header("content-type"), "image/png");
    assert_eq!(data_url(&picture.bytes), url);

    // Asked for again before the scan: the same session and its code.
    let again = acme.post(CONNECT, of(user)).await.ok();
    assert_eq!(again, answer);
    let status = acme.get(&format!("/api/whatsapp/status/{user}")).await.ok();
    assert_json_snapshot!("status", redacted(status));
    let connections = acme.get("/api/whatsapp/connections").await.ok();
    assert_json_snapshot!(
        "connections",
        redacted(json!({
            "status": connections["status"],
            "count": connections["count"],
            "connections": connections["connections"],
        }))
    );
}

fn data_url(png: &[u8]) -> String {
    use base64::Engine;
    let base64 = base64::prelude::BASE64_STANDARD.encode(png);
    format!("data:image/png;base64,{base64}")
}

#[tokio::test]
async fn a_code_is_had_in_the_form_that_is_asked_for() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let user = Uuid::new_v4();
    let path = format!("/api/whatsapp/qr/{user}");
    let asked = async |accept: &str| {
        Answer::of(acme.request(Method::GET, &path).header("Accept", accept)).await
    };
    {
        let _gateway = Gateway::start(&api);
        acme.post(CONNECT, of(user)).await.ok();
    }

    let png = asked("image/png").await;
    assert!(png.bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert_eq!(asked("*/*").await.bytes, png.bytes);
    assert_eq!(
        (png.header("vary"), png.header("cache-control")),
        ("Accept", "no-store")
    );

    let svg = asked("image/svg+xml").await;
    assert_eq!(svg.header("content-type"), "image/svg+xml");
    assert!(String::from_utf8(svg.bytes).unwrap().contains("<svg"));

    let text = asked("text/plain").await;
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(text.bytes, CODE.as_bytes());

    asked("application/json").await.problem(406);

    let session = id(&acme.get(&format!("/api/whatsapp/status/{user}")).await.ok()["session_id"]);
    let mut conn = api.conn().await;
    let hold = lease(&mut conn, session).await;
    Connection::show_code(&mut conn, hold, Code::Qr(CODE), -1.0)
        .await
        .unwrap();
    let expired = asked("image/png").await.problem(404);
    assert!(
        expired["detail"]
            .as_str()
            .unwrap()
            .contains("no QR code now"),
        "{expired}"
    );
}

#[tokio::test]
async fn a_code_to_be_typed_is_in_the_answer_and_is_no_picture() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let _gateway = Gateway::start(&api);
    let user = Uuid::new_v4();
    let by_code = json!({"user_id": user, "phone_number": NUMBER, "pairing": "code"});
    let answer = acme.post(CONNECT, by_code).await.ok();
    assert_eq!(answer["status"], "reconnecting");
    assert_eq!(answer["pairing_code"], TYPED);
    assert_eq!(answer["qr_code"], Value::Null);
    acme.get(&format!("/api/whatsapp/qr/{user}"))
        .await
        .problem(404);

    let by_picture = acme.post(CONNECT, of(user)).await.ok();
    assert_eq!(by_picture["pairing_code"], Value::Null);
    assert!(by_picture["qr_code"].is_string());
}

#[tokio::test]
async fn a_linked_device_is_connected_again_without_a_code() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let _gateway = Gateway::start(&api);
    let user = Uuid::new_v4();
    let session = connected(&api, &acme, user).await;

    let twice = acme.post(CONNECT, of(user)).await.problem(409);
    assert_eq!(twice["type"], "urn:recado:problem:already-connected");
    let taken = acme.post(CONNECT, of(Uuid::new_v4())).await.problem(409);
    assert_eq!(taken["type"], "urn:recado:problem:number-taken");
    let other = json!({"user_id": user, "phone_number": "4915112345678"});
    assert_eq!(acme.post(CONNECT, other.clone()).await.status, 409);

    let body = json!({"user_id": user});
    let closed = acme
        .post("/api/whatsapp/disconnect", body.clone())
        .await
        .ok();
    assert_eq!(
        closed,
        json!({"status": "disconnected", "session_id": session})
    );
    // Once more: it is as it was asked to be.
    acme.post("/api/whatsapp/disconnect", body).await.ok();
    let moved = acme.post(CONNECT, other).await.problem(409);
    assert_eq!(moved["type"], "urn:recado:problem:other-number");

    let back = acme.post(CONNECT, of(user)).await.ok();
    let open = json!({
        "status": "connected", "qr_code": null, "pairing_code": null, "session_id": session
    });
    assert_eq!(back, open);
}

#[tokio::test]
async fn a_log_out_unlinks_and_a_deleted_connection_is_gone() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let _gateway = Gateway::start(&api);
    let user = Uuid::new_v4();
    let session = connected(&api, &acme, user).await;

    let out = acme
        .post("/api/whatsapp/logout", json!({"user_id": user}))
        .await
        .ok();
    assert_eq!(out, json!({"status": "logged_out", "session_id": session}));
    let disconnect = acme
        .post("/api/whatsapp/disconnect", json!({"user_id": user}))
        .await
        .ok();
    assert_eq!(
        disconnect["status"], "logged_out",
        "there is nothing left to disconnect"
    );

    let path = format!("/api/whatsapp/connections/{session}");
    let removed = acme.delete(&path).await.ok();
    assert_eq!(
        removed,
        json!({"status": "logged_out", "session_id": session})
    );
    acme.delete(&path).await.problem(404);
    acme.get(&format!("/api/whatsapp/status/{user}"))
        .await
        .problem(404);
    assert_eq!(acme.get("/api/whatsapp/connections").await.ok()["count"], 0);
}

#[tokio::test]
async fn without_a_gateway_each_call_says_so_after_its_wait_and_what_was_asked_stands() {
    let api = Api::start_with(&[("GATEWAY_WAIT", "150")]).await;
    let acme = api.tenant("acme").await;
    let user = Uuid::new_v4();

    let unanswered = acme.post(CONNECT, of(user)).await;
    assert_eq!(
        unanswered.problem(503)["type"],
        "urn:recado:problem:no-gateway"
    );
    assert!(!unanswered.header("retry-after").is_empty());
    let standing = acme.get(&format!("/api/whatsapp/status/{user}")).await.ok();
    assert_eq!(standing["status"], "reconnecting");
    acme.get(&format!("/api/whatsapp/qr/{user}"))
        .await
        .problem(404);

    let body = json!({"user_id": user});
    let pending = acme.post("/api/whatsapp/disconnect", body.clone()).await;
    assert_eq!(
        (pending.status, &pending.json()["status"]),
        (202, &json!("reconnecting"))
    );
    let pending = acme.post("/api/whatsapp/logout", body).await;
    assert_eq!(pending.status, 202);
    let session = id(&pending.json()["session_id"]);
    let pending = acme
        .delete(&format!("/api/whatsapp/connections/{session}"))
        .await;
    assert_eq!(pending.status, 202);
    acme.get(&format!("/api/whatsapp/status/{user}"))
        .await
        .problem(404);
}

#[tokio::test]
async fn a_session_that_ends_while_it_is_connected_is_a_conflict_that_says_why() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let user = Uuid::new_v4();
    let ended = async {
        let row = testkit::eventually(std::time::Duration::from_secs(10), async || {
            let mut conn = api.conn().await;
            Connection::of_user(&mut conn, acme.id, user).await.unwrap()
        })
        .await;
        let mut conn = api.conn().await;
        Connection::transition(
            &mut conn,
            row.lease(),
            Status::LoggedOut,
            Some("number_mismatch"),
        )
        .await
        .unwrap();
    };
    let (answer, ()) = tokio::join!(acme.post(CONNECT, of(user)), ended);
    let problem = answer.problem(409);
    assert_eq!(problem["type"], "urn:recado:problem:session-ended");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("number_mismatch")
    );
    let status = acme.get(&format!("/api/whatsapp/status/{user}")).await.ok();
    assert_eq!(
        (&status["status"], &status["reason"]),
        (&json!("logged_out"), &json!("number_mismatch"))
    );
}

#[tokio::test]
async fn calls_that_wait_for_a_gateway_hold_no_database_connection() {
    let api = Api::start_with(&[("DATABASE_POOL_SIZE", "1"), ("GATEWAY_WAIT", "3000")]).await;
    let acme = api.tenant("acme").await;
    let waiting = futures_util::future::join_all((0..8).map(|n| {
        let number = format!("49151000000{n}");
        let body = json!({"user_id": Uuid::new_v4(), "phone_number": number});
        let acme = &acme;
        async move { acme.post(CONNECT, body).await.problem(503) }
    }));
    let others = async {
        testkit::eventually(std::time::Duration::from_secs(10), async || {
            acme.get("/api/whatsapp/connections").await.ok()["count"] == 8
        })
        .await;
        acme.webhook(NUMBER).await;
    };
    // The others are done while all eight still wait.
    futures_util::pin_mut!(waiting, others);
    match futures_util::future::select(waiting, others).await {
        futures_util::future::Either::Left(_) => panic!("the wait was over first"),
        futures_util::future::Either::Right((_, waiting)) => drop(waiting.await),
    }
}
