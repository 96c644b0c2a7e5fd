//! Files to be sent: put here, and named in a request.

use domain::connection::Connection;
use domain::media::Kind;
use domain::outbox::{Attachment, Body, Outgoing, Source};
use domain::upload::QUOTA;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::gateway::Gateway;
use crate::media_host::{self, receive_on};
use crate::sessions::connected;
use crate::world::{Answer, Api, Tenant, id};

const SEND: &str = "/api/whatsapp/send";
const ANA: &str = "5511911112222";
const MEDIA: &str = "/api/media";

async fn upload(tenant: &Tenant<'_>, mimetype: &str, content: Vec<u8>) -> Answer {
    let request = tenant.request(Method::POST, MEDIA);
    Answer::of(request.header("Content-Type", mimetype).body(content)).await
}

fn asked(user: Uuid, kind: &str, file: Value) -> Value {
    json!({"user_id": user, "to": ANA, kind: file})
}

/// What the gateway is given for a request.
async fn written(tenant: &Tenant<'_>, user: Uuid, kind: &str, file: Value) -> Attachment {
    let key = Uuid::new_v4().to_string();
    let request = tenant.request(Method::POST, SEND);
    let request = request.header("Idempotency-Key", &key);
    let answer = Answer::of(request.json(&asked(user, kind, file))).await;
    assert_eq!(answer.ok()["status"], "sent");
    let row = Outgoing::of_key(&mut *tenant.conn().await, tenant.id, &key).await;
    match row.unwrap().unwrap().content().unwrap().body {
        Body::Media(attachment) => attachment,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_is_sent_from_a_url_an_upload_or_a_message() {
    let (api, host) = (
        Api::start_with(&[("WEBHOOK_ALLOWED_CIDRS", "127.0.0.0/8")]).await,
        media_host::start().await,
    );
    let acme = api.tenant("acme").await;
    let _gateway = Gateway::start(&api);
    let user = Uuid::new_v4();
    let session = connected(&api, &acme, user).await;

    let url = "http://127.0.0.1:9/a.jpg";
    let sent = written(&acme, user, "image", json!({"url": url, "caption": "look"})).await;
    assert_eq!(
        (sent.kind, sent.caption.as_deref()),
        (Kind::Image, Some("look"))
    );
    assert_eq!(sent.source, Source::Url(url.to_owned()));

    let uploaded = upload(&acme, "audio/ogg; codecs=opus", b"a song".to_vec()).await;
    assert_eq!(uploaded.status, 201);
    let media = &uploaded.json()["media"];
    assert_eq!(
        (&media["size"], &media["mimetype"]),
        (&json!(6), &json!("audio/ogg; codecs=opus"))
    );
    assert_eq!(media["sha256"].as_str().unwrap().len(), 64);
    let song = id(&media["id"]);
    let sent = written(
        &acme,
        user,
        "audio",
        json!({"media_id": song, "voice": true}),
    )
    .await;
    assert_eq!((sent.kind, sent.voice), (Kind::Audio, true));
    assert_eq!(sent.source, Source::Upload(song));
    let file = json!({"media_id": song, "file_name": "a.ogg", "mimetype": "audio/ogg"});
    let sent = written(&acme, user, "document", file).await;
    assert_eq!(sent.file_name.as_deref(), Some("a.ogg"));

    let film = host.put(Kind::Video, b"film").await;
    let connection = Connection::find(&mut *acme.conn().await, session).await;
    let received = receive_on(&acme, &connection.unwrap().unwrap(), &film).await;
    let sent = written(&acme, user, "video", json!({"media_id": received})).await;
    assert_eq!(sent.source, Source::Message(received));
    let request = asked(user, "image", json!({"media_id": received}));
    assert_eq!(acme.post(SEND, request).await.field(), "image.media_id");
}

#[tokio::test]
async fn what_cannot_be_sent_names_its_field() {
    let api = Api::start().await;
    let (acme, other) = (api.tenant("acme").await, api.tenant("other").await);
    let _gateway = Gateway::start(&api);
    let user = Uuid::new_v4();
    connected(&api, &acme, user).await;
    let theirs = id(&upload(&other, "image/png", b"a".to_vec()).await.json()["media"]["id"]);
    let song = id(&upload(&acme, "audio/mpeg", b"a".to_vec()).await.json()["media"]["id"]);
    let url = "https://recado.invalid/a";
    for (kind, file, field) in [
        ("image", json!({"media_id": song}), "image.media_id"),
        (
            "image",
            json!({"url": url, "mimetype": "text/html"}),
            "image.mimetype",
        ),
        ("image", json!({}), "image.url"),
        (
            "image",
            json!({"url": url, "media_id": theirs}),
            "image.url",
        ),
        (
            "image",
            json!({"url": "ftp://recado.invalid/a"}),
            "image.url",
        ),
        ("image", json!({"url": "https://127.0.0.1/a"}), "image.url"),
        (
            "image",
            json!({"url": "http://169.254.169.254/latest"}),
            "image.url",
        ),
        ("video", json!({"media_id": theirs}), "video.media_id"),
        (
            "video",
            json!({"media_id": Uuid::new_v4()}),
            "video.media_id",
        ),
        ("video", json!({"media_id": "7"}), "video.media_id"),
        (
            "audio",
            json!({"url": url, "caption": "a"}),
            "audio.caption",
        ),
        ("image", json!({"url": url, "voice": true}), "image.voice"),
        (
            "video",
            json!({"url": url, "file_name": "a"}),
            "video.file_name",
        ),
        (
            "image",
            json!({"url": url, "mimetype": "a\r\nb"}),
            "image.mimetype",
        ),
        (
            "document",
            json!({"url": url, "file_name": ""}),
            "document.file_name",
        ),
        (
            "document",
            json!({"url": url, "name": "a"}),
            "document.name",
        ),
    ] {
        let answer = acme.post(SEND, asked(user, kind, file.clone())).await;
        assert_eq!(answer.field(), field, "{file}");
    }
    let two = json!({"user_id": user, "to": ANA, "text": "a", "image": {"url": url}});
    assert_eq!(acme.post(SEND, two).await.field(), "text");
}

#[tokio::test]
async fn an_upload_is_bounded_and_says_what_it_is() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let most = 16 * 1024 * 1024;
    assert_eq!(upload(&acme, "image/png", vec![1; most]).await.status, 201);
    upload(&acme, "image/png", vec![1; most + 1])
        .await
        .problem(413);
    upload(&acme, "image/png", Vec::new()).await.problem(400);
    upload(&acme, "multipart/form-data; boundary=a", b"a".to_vec())
        .await
        .problem(415);
    upload(&acme, "nonsense", b"a".to_vec()).await.problem(415);
    let nobody = Answer::of(api.request(Method::POST, MEDIA).body("a")).await;
    assert_eq!(nobody.status, 401);

    let full = format!("UPDATE whatsapp_uploads SET size = {QUOTA}");
    diesel_async::SimpleAsyncConnection::batch_execute(&mut *acme.conn().await, &full)
        .await
        .unwrap();
    let problem = upload(&acme, "image/png", b"a".to_vec()).await.problem(422);
    assert_eq!(problem["type"], "urn:recado:problem:uploads-full");
    let other = api.tenant("other").await;
    assert_eq!(upload(&other, "image/png", b"a".to_vec()).await.status, 201);
}

#[tokio::test]
async fn a_repeated_request_is_answered_from_the_first_when_its_file_is_gone() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let gateway = Gateway::start(&api);
    let user = Uuid::new_v4();
    connected(&api, &acme, user).await;
    let uploaded = upload(&acme, "image/png", b"a".to_vec()).await;
    let body = asked(
        user,
        "image",
        json!({"media_id": uploaded.json()["media"]["id"]}),
    );
    let under_key = async || {
        let request = acme.request(Method::POST, SEND);
        Answer::of(request.header("Idempotency-Key", "order-1").json(&body)).await
    };
    let first = under_key().await.ok();
    drop(gateway);
    let gone =
        "DELETE FROM whatsapp_uploads; UPDATE whatsapp_connections SET status = 'disconnected'";
    diesel_async::SimpleAsyncConnection::batch_execute(&mut *acme.conn().await, gone)
        .await
        .unwrap();
    assert_eq!(under_key().await.ok(), first);
    let other = acme.request(Method::POST, SEND).json(&body);
    assert_eq!(Answer::of(other).await.field(), "image.media_id");
}
