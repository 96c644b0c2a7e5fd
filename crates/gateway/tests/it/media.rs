//! Files: kept of what comes, and sent from wherever they are.

use domain::connection::Connection;
use domain::keyring::Keyring;
use domain::media::{File, Kind};
use domain::outbox::{Attachment, Body, Content, Outgoing, Source};
use domain::upload::Upload;
use serde_json::json;
use testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;
use whatsapp_rust::wacore::download::{DownloadUtils, MediaType};
use whatsapp_rust::waproto::codec::message_decode;
use whatsapp_rust::waproto::whatsapp as wa;

use crate::rig::{ANA, KEYS, LIMIT, NUMBER, Rig};
use crate::sending::{ana, arrived, ask, settled};

async fn kept(rig: &Rig, message: Uuid) -> File {
    let sealed = File::find_sealed(&mut rig.conn().await, rig.client_id, message).await;
    let sealed = sealed.unwrap().unwrap();
    File::open(&Keyring::parse(KEYS).unwrap(), message, &sealed).unwrap()
}

/// Answers one request after the other, each with the next of these.
async fn serve(answers: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            // Who has read enough goes before the end.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

fn answer(status: &str, content: &str) -> String {
    let length = content.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{content}"
    )
}

fn attached(kind: Kind, source: Source) -> Attachment {
    Attachment {
        kind,
        source,
        mimetype: None,
        file_name: None,
        caption: None,
        voice: false,
    }
}

async fn send(rig: &Rig, from: &Connection, id: &str, attachment: Attachment) -> Outgoing {
    let content = Content {
        body: Body::Media(attachment),
        reply_to: None,
    };
    let asked = ask(rig, from, &ana(), id, &content).await;
    settled(rig, &asked).await
}

fn id(turn: usize) -> String {
    format!("3EB00000000000000000{turn:02}")
}

/// The message as its receiver's phone reads it.
async fn read(rig: &Rig, turn: usize) -> wa::Message {
    let all = arrived(rig).await;
    let found = all.iter().find(|sent| sent["id"] == id(turn).as_str());
    let text = found.unwrap()["content"].as_str().unwrap();
    let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).unwrap();
    message_decode(&bytes).unwrap()
}

/// What a phone has that fetches the file.
async fn fetched(
    rig: &Rig,
    path: &Option<String>,
    key: &Option<Vec<u8>>,
    kind: MediaType,
) -> String {
    let stored = rig.stored(path.as_deref().unwrap()).await;
    let file = DownloadUtils::verify_and_decrypt(&stored, key.as_deref().unwrap(), kind);
    String::from_utf8(file.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_takes_to_have_a_file_that_came_is_kept_with_its_message() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    rig.link(NUMBER).await;
    rig.send(json!({"to": NUMBER, "from": ANA, "type": "document", "text": "look"}))
        .await;
    let row = rig.wait_for_rows(1).await.remove(0);
    assert_eq!(row.metadata["media"]["id"], row.id.to_string());
    let file = kept(&rig, row.id).await;
    assert_eq!((file.kind, file.size), (Kind::Document, 12_345));
    assert_eq!(file.file_name.as_deref(), Some("document.pdf"));
    assert_eq!(file.media_key.0, [1; 32]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_urls_and_uploads_arrive_and_a_received_one_is_handed_on() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    let url = serve(vec![answer("200 OK", "a picture")]).await;
    let image = Attachment {
        caption: Some("look".to_owned()),
        ..attached(Kind::Image, Source::Url(url))
    };
    assert_eq!(send(&rig, &linked, &id(1), image).await.error, None);
    let message = read(&rig, 1).await;
    let image = message.image_message.as_option().unwrap();
    assert_eq!(image.caption.as_deref(), Some("look"));
    assert_eq!(image.mimetype.as_deref(), Some("image/png"));
    let file = fetched(&rig, &image.direct_path, &image.media_key, MediaType::Image).await;
    assert_eq!(file, "a picture");

    // What was sent is told as the account's own, and can be had and handed on.
    let row = rig.wait_for_rows(1).await.remove(0);
    assert_eq!(row.event_type, "message.sent");
    assert_eq!(row.metadata["media"]["id"], row.id.to_string());
    let again = attached(Kind::Image, Source::Message(row.id));
    assert_eq!(send(&rig, &linked, &id(2), again).await.error, None);
    let message = read(&rig, 2).await;
    let second = message.image_message.as_option().unwrap();
    assert_eq!(second.direct_path, image.direct_path);
    let file = fetched(
        &rig,
        &second.direct_path,
        &second.media_key,
        MediaType::Image,
    )
    .await;
    assert_eq!(file, "a picture");

    let mut conn = rig.conn().await;
    let upload = Upload::insert(&mut conn, rig.client_id, "audio/mpeg", b"a song").await;
    let upload = upload.unwrap().unwrap();
    for (turn, kind) in [(3, Kind::Audio), (4, Kind::Document)] {
        let attachment = Attachment {
            voice: kind == Kind::Audio,
            file_name: Some("song.mp3".to_owned()),
            ..attached(kind, Source::Upload(upload.id))
        };
        assert_eq!(send(&rig, &linked, &id(turn), attachment).await.error, None);
    }
    let message = read(&rig, 3).await;
    let audio = message.audio_message.as_option().unwrap();
    assert_eq!(
        (audio.ptt, audio.mimetype.as_deref()),
        (Some(true), Some("audio/mpeg"))
    );
    let file = fetched(&rig, &audio.direct_path, &audio.media_key, MediaType::Audio).await;
    assert_eq!(file, "a song");
    let message = read(&rig, 4).await;
    let document = message.document_message.as_option().unwrap();
    assert_eq!(document.file_name.as_deref(), Some("song.mp3"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_can_never_be_had_fails_with_its_reason_and_one_that_may_is_tried_again() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    let moved = "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n";
    let large = "HTTP/1.1 200 OK\r\nContent-Length: 16777217\r\n\r\n";
    let gone = serve(vec![answer("404 Not Found", "")]).await;
    let nothing = serve(vec![answer("200 OK", "")]).await;
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nsoon";
    let text = rig
        .send(json!({"to": NUMBER, "from": ANA, "type": "video"}))
        .await;
    assert_eq!(text.len(), 1);
    let received = rig.wait_for_rows(1).await.remove(0).id;
    for (turn, (source, why)) in [
        (Source::Url(gone), "404"),
        (
            Source::Url(serve(vec![moved.to_owned()]).await),
            "redirects",
        ),
        (Source::Url(serve(vec![large.to_owned()]).await), "larger"),
        (Source::Url(nothing), "empty"),
        (
            Source::Url(serve(vec![page.to_owned()]).await),
            "said to be text/html",
        ),
        (Source::Url("http://10.0.0.1/a".to_owned()), "not allowed"),
        (Source::Url("http://[::1]/a".to_owned()), "not allowed"),
        (Source::Url("ftp://127.0.0.1/a".to_owned()), "https"),
        (Source::Upload(Uuid::new_v4()), "no longer here"),
        (Source::Message(Uuid::new_v4()), "no longer here"),
        (Source::Message(received), "another kind"),
    ]
    .into_iter()
    .enumerate()
    {
        let failed = send(&rig, &linked, &id(turn), attached(Kind::Image, source)).await;
        assert_eq!(failed.status, "failed", "{why}");
        let error = failed.error.unwrap();
        assert!(
            error.contains(why) && !error.contains("10.0.0.1"),
            "{error}"
        );
    }

    let busy = || answer("503 Service Unavailable", "");
    let url = serve(vec![busy(), busy(), answer("200 OK", "a picture")]).await;
    let sent = send(
        &rig,
        &linked,
        &id(20),
        attached(Kind::Image, Source::Url(url)),
    )
    .await;
    assert_eq!((sent.status.as_str(), sent.attempts), ("sent", 2));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_media_host_that_takes_no_file_is_asked_again_before_the_message_fails() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    let mut conn = rig.conn().await;
    let upload = Upload::insert(&mut conn, rig.client_id, "image/png", b"a picture").await;
    let image = attached(Kind::Image, Source::Upload(upload.unwrap().unwrap().id));
    let faults = |status: u16| json!({ "media_status": status }).to_string();
    rig.post("/admin/faults", faults(500)).await;
    let content = Content {
        body: Body::Media(image),
        reply_to: None,
    };
    let asked = ask(&rig, &linked, &ana(), &id(1), &content).await;
    // More often than a URL is asked.
    eventually(LIMIT, async || {
        let row = Outgoing::find(&mut rig.conn().await, asked.id).await;
        row.unwrap().unwrap().attempts > 3
    })
    .await;
    rig.post("/admin/faults", faults(0)).await;
    let row = Outgoing::find(&mut rig.conn().await, asked.id).await;
    assert_eq!(row.unwrap().unwrap().status, "queued");
    rig.run_sql("UPDATE whatsapp_outbox SET due_at = now()")
        .await;
    assert_eq!(settled(&rig, &asked).await.status, "sent");
    gateway.stop().await;
}
