use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::gateway::Gateway;
use crate::sessions::connected;
use crate::world::{Answer, Api, NUMBER, Tenant};

const SEND: &str = "/api/whatsapp/send";
const ANA: &str = "5511911112222";
/// Who writes what a tenant receives.
const WRITER: &str = "5511999999999";

fn text(user: Uuid, text: &str) -> Value {
    json!({"user_id": user, "to": ANA, "text": text})
}

async fn under_key(tenant: &Tenant<'_>, key: &str, body: &Value) -> Answer {
    let request = tenant.request(Method::POST, SEND);
    Answer::of(request.header("Idempotency-Key", key).json(body)).await
}

#[tokio::test]
async fn a_message_is_sent_and_its_id_is_in_the_answer() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let _gateway = Gateway::start(&api);
    let user = Uuid::new_v4();
    connected(&api, &acme, user).await;
    let answer = acme.post(SEND, text(user, "Olá!")).await.ok();
    assert_eq!(answer["status"], "sent");
    let id = answer["message_id"].as_str().unwrap();
    assert!(id.starts_with("3EB0") && id.len() == 22, "{id}");
    assert_eq!(answer.as_object().unwrap().len(), 2);

    let place = json!({"user_id": user, "to": "120363021033254949@g.us",
        "location": {"latitude": -23.5, "longitude": -46.6, "name": "Sé"}});
    assert_eq!(acme.post(SEND, place).await.ok()["status"], "sent");
    let card = json!({"user_id": user, "to": ANA,
        "contact": {"name": "Loja", "phone_number": "+55 11 90000-0000"}});
    assert_eq!(acme.post(SEND, card).await.ok()["status"], "sent");
}

#[tokio::test]
async fn what_is_not_confirmed_in_time_is_queued_and_what_is_refused_says_why() {
    let api = Api::start_with(&[("GATEWAY_WAIT", "300")]).await;
    let acme = api.tenant("acme").await;
    let gateway = Gateway::start(&api);
    let user = Uuid::new_v4();
    connected(&api, &acme, user).await;
    let answer = acme.post(SEND, text(user, "later")).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["status"], "queued");
    assert!(answer.json()["message_id"].is_string());
    let problem = acme.post(SEND, text(user, "never")).await.problem(422);
    assert_eq!(problem["type"], "urn:recado:problem:not-sent");
    assert!(
        problem["detail"].as_str().unwrap().contains("479"),
        "{problem}"
    );
    let problem = acme.post(SEND, text(user, "maybe")).await.problem(422);
    assert_eq!(problem["type"], "urn:recado:problem:not-confirmed");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("not confirmed"), "{problem}");

    drop(gateway);
    let queued = under_key(&acme, "k", &text(user, "hi")).await;
    assert_eq!(queued.status, 202);
    let _gateway = Gateway::start(&api);
    testkit::eventually(std::time::Duration::from_secs(10), async || {
        let again = under_key(&acme, "k", &text(user, "hi")).await;
        assert_eq!(again.json()["message_id"], queued.json()["message_id"]);
        again.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_repeated_under_its_key_sends_nothing_more() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let _gateway = Gateway::start(&api);
    let user = Uuid::new_v4();
    connected(&api, &acme, user).await;
    let body = text(user, "Olá!");
    let (first, second) = tokio::join!(
        under_key(&acme, "order-1", &body),
        under_key(&acme, "order-1", &body)
    );
    assert_eq!(first.ok(), second.ok());
    assert_eq!(under_key(&acme, "order-1", &body).await.ok(), first.ok());
    let other = under_key(&acme, "order-2", &body).await.ok();
    assert_ne!(other["message_id"], first.ok()["message_id"]);

    let changed = under_key(&acme, "order-1", &text(user, "Tchau!")).await;
    let problem = changed.problem(422);
    assert_eq!(problem["type"], "urn:recado:problem:idempotency-key-used");
    for bad in ["", "two words", &"k".repeat(256)] {
        let refused = under_key(&acme, bad, &body).await;
        assert_eq!(refused.field(), "Idempotency-Key", "{bad}");
    }
    // Another client's keys are its own.
    let other = api.tenant("other").await;
    let theirs = Uuid::new_v4();
    connected(&api, &other, theirs).await;
    let sent = under_key(&other, "order-1", &text(theirs, "Tchau!"))
        .await
        .ok();
    assert_ne!(sent["message_id"], first.ok()["message_id"]);
}

#[tokio::test]
async fn a_reply_and_a_reaction_name_a_message_of_the_same_chat() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let _gateway = Gateway::start(&api);
    let connection = acme.connection(NUMBER).await;
    let user = connection.user_id;
    connected(&api, &acme, user).await;
    acme.receive(&connection, &["M1"]).await;

    let reply =
        |to: &str, id: &str| json!({"user_id": user, "to": to, "text": "Sim", "reply_to": id});
    let reaction = |to: &str, id: &str| json!({"user_id": user, "to": to, "reaction": {"message_id": id, "emoji": "👍"}});
    acme.post(SEND, reply(WRITER, "M1")).await.ok();
    acme.post(SEND, reaction(WRITER, "M1")).await.ok();
    for (to, id) in [
        (WRITER, "M2"),
        (ANA, "M1"),
        ("120363021033254949@g.us", "M1"),
        ("5511999999999@lid", "M1"),
    ] {
        let refused = acme.post(SEND, reply(to, id)).await;
        assert_eq!(refused.field(), "reply_to", "{to} {id}");
        let refused = acme.post(SEND, reaction(to, id)).await;
        assert_eq!(refused.field(), "reaction.message_id", "{to} {id}");
    }
}

#[tokio::test]
async fn a_session_that_is_not_connected_sends_nothing() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let connection = acme.connection(NUMBER).await;
    let refused = acme.post(SEND, text(connection.user_id, "hi")).await;
    assert_eq!(
        refused.problem(409)["type"],
        "urn:recado:problem:not-connected"
    );
    let nobody = acme.post(SEND, text(Uuid::new_v4(), "hi")).await;
    nobody.problem(404);
}

#[tokio::test]
async fn bad_messages_name_their_field() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let user = acme.connection(NUMBER).await.user_id;
    let with = |field: &str, value: Value| {
        let mut body = json!({"user_id": user, "to": ANA});
        body[field] = value;
        body
    };
    let far = json!({"latitude": 91, "longitude": 0});
    let nameless = json!({"name": "", "phone_number": ANA});
    let both = json!({"user_id": user, "to": ANA, "text": "x", "location": {"latitude": 1, "longitude": 1}});
    for (body, field) in [
        (json!({"user_id": user, "text": "x"}), "to"),
        (json!({"user_id": user, "to": "7", "text": "x"}), "to"),
        (
            json!({"user_id": user, "to": "status@broadcast", "text": "x"}),
            "to",
        ),
        (json!({"to": ANA, "text": "x"}), "user_id"),
        (json!({"user_id": user, "to": ANA}), "text"),
        (both, "text"),
        (with("text", "".into()), "text"),
        (with("text", "a\0b".into()), "text"),
        (with("text", "x".repeat(65_537).into()), "text"),
        (with("location", far), "location.latitude"),
        (
            with("location", json!({"latitude": 1})),
            "location.longitude",
        ),
        (with("contact", nameless), "contact.name"),
        (
            with("contact", json!({"name": "A", "phone_number": "0"})),
            "contact.phone_number",
        ),
        (with("sticker", json!({})), "sticker"),
    ] {
        assert_eq!(acme.post(SEND, body.clone()).await.field(), field, "{body}");
    }
}
