//! Files of messages, as clients ask for them.

use domain::media::{Bytes32, File, Kind};
use futures_util::StreamExt;
use reqwest::Method;
use testkit::eventually;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::dispatcher::SECOND;
use crate::media_host::{self, RawHost, begin, receive};
use crate::world::{Answer, Api};

const LARGE: usize = 20 * 1024 * 1024;

async fn api(host: &str) -> Api {
    Api::start_with(&[("WHATSAPP_MEDIA_URL", host), ("MEDIA_DOWNLOADS", "1")]).await
}

fn path(id: Uuid) -> String {
    format!("/api/media/{id}")
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 % 251) as u8).collect()
}

/// A file that only a raw host knows of.
pub(crate) fn file(size: u64) -> File {
    File {
        kind: Kind::Image,
        direct_path: "//evil.example/v/a?b=c".to_owned(),
        media_key: Bytes32([1; 32]),
        file_enc_sha256: Bytes32([2; 32]),
        file_sha256: Bytes32([3; 32]),
        size,
        mimetype: None,
        file_name: None,
    }
}

#[tokio::test]
async fn a_file_comes_as_it_was_sent_whatever_its_kind_and_size() {
    let host = media_host::start().await;
    let api = api(&host.url()).await;
    for (kind, size) in [
        (Kind::Image, 1),
        (Kind::Video, LARGE),
        (Kind::Audio, 4096),
        (Kind::Document, 262_145),
        (Kind::Sticker, 262_144),
    ] {
        let acme = api.tenant(kind.as_str()).await;
        let content = content(size);
        let id = receive(&acme, &host.put(kind, &content).await).await;
        let answer = acme.get(&path(id)).await;
        assert_eq!(answer.status, 200, "{kind:?}");
        assert!(answer.bytes == content, "{kind:?}");
        assert_eq!(answer.header("content-length"), size.to_string());
    }
}

#[tokio::test]
async fn the_head_says_what_the_file_is_called_and_lets_nothing_of_it_run() {
    let host = media_host::start().await;
    let api = api(&host.url()).await;
    let acme = api.tenant("acme").await;
    let file = File {
        mimetype: Some("text/html\r\nSet-Cookie: a=b".to_owned()),
        file_name: Some("Olá\r\n\"; x.html".to_owned()),
        ..host.put(Kind::Document, b"<script>").await
    };
    let id = receive(&acme, &file).await;
    let got = acme.get(&path(id)).await;
    let head = Answer::of(acme.request(Method::HEAD, &path(id))).await;
    assert_eq!(
        (got.bytes.as_slice(), head.bytes.len()),
        (&b"<script>"[..], 0)
    );
    for answer in [got, head] {
        assert_eq!(answer.status, 200);
        for (name, value) in [
            ("content-length", "8"),
            ("content-type", "application/octet-stream"),
            (
                "content-disposition",
                "attachment; filename=\"Ol___ x.html\"; filename*=UTF-8''Ol%C3%A1%22%3B%20x.html",
            ),
            ("cache-control", "private, no-store"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; sandbox"),
            ("set-cookie", ""),
        ] {
            assert_eq!(answer.header(name), value, "{name}");
        }
    }
}

#[tokio::test]
async fn a_file_is_its_clients_alone_and_a_text_has_none() {
    let host = media_host::start().await;
    let api = api(&host.url()).await;
    let (acme, other) = (api.tenant("acme").await, api.tenant("other").await);
    let id = receive(&acme, &host.put(Kind::Image, b"mine").await).await;
    other.get(&path(id)).await.problem(404);
    let nobody = Answer::of(api.request(Method::GET, &path(id))).await;
    assert_eq!(nobody.status, 401);

    let connection = acme.connection("5511977776666").await;
    let text = crate::world::message(&connection, "TEXT");
    acme.receive(&connection, &["TEXT"]).await;
    acme.get(&path(text.id)).await.problem(404);
    acme.get(&path(Uuid::new_v4())).await.problem(404);
    assert_eq!(acme.get("/api/media/7").await.field(), "media_id");
}

#[tokio::test]
async fn what_whatsapp_keeps_no_more_is_gone() {
    let host = media_host::start().await;
    let api = api(&host.url()).await;
    for status in [403, 404, 410] {
        let acme = api.tenant(&status.to_string()).await;
        let file = host.put(Kind::Image, &content(status.into())).await;
        let id = receive(&acme, &file).await;
        host.forget(&file, status).await;
        let problem = acme.get(&path(id)).await.problem(410);
        assert_eq!(problem["type"], "urn:recado:problem:media-gone");
    }
}

#[tokio::test]
async fn a_small_file_that_was_tampered_with_is_refused_and_a_large_one_cut_off() {
    let host = media_host::start().await;
    let api = api(&host.url()).await;
    let acme = api.tenant("acme").await;
    let small = host.put(Kind::Image, &content(1000)).await;
    let id = receive(&acme, &small).await;
    host.corrupt(&small).await;
    let problem = acme.get(&path(id)).await.problem(502);
    assert_eq!(problem["type"], "urn:recado:problem:media-broken");

    let other = api.tenant("other").await;
    let large = host.put(Kind::Video, &content(LARGE)).await;
    let id = receive(&other, &large).await;
    host.corrupt(&large).await;
    let (got, ended_well) = read(other.request(Method::GET, &path(id))).await;
    assert!(!ended_well);
    assert!(got < LARGE, "not its end");
}

/// How much of an answer came, and whether it came to a good end.
async fn read(request: reqwest::RequestBuilder) -> (usize, bool) {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut pieces = answer.bytes_stream();
    let mut got = 0;
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => got += piece.len(),
            Err(_) => return (got, false),
        }
    }
    (got, true)
}

#[tokio::test]
async fn a_media_host_that_is_away_or_refuses_is_told_apart_from_a_file_that_is_gone() {
    let host = media_host::start().await;
    let api = api(&host.url()).await;
    let acme = api.tenant("acme").await;
    let id = receive(&acme, &host.put(Kind::Image, b"a").await).await;
    for status in [429, 500, 503] {
        host.fail_with(status).await;
        let answer = acme.get(&path(id)).await;
        answer.problem(503);
        assert!(!answer.header("retry-after").is_empty());
    }
    host.fail_with(400).await;
    acme.get(&path(id)).await.problem(502);
    host.fail_with(0).await;
    assert_eq!(acme.get(&path(id)).await.status, 200);

    let away = Api::start().await;
    let acme = away.tenant("acme").await;
    let id = receive(&acme, &host.put(Kind::Image, b"a").await).await;
    acme.get(&path(id)).await.problem(503);
}

#[tokio::test]
async fn no_redirect_is_followed_and_no_path_leads_elsewhere() {
    let host = RawHost::start().await;
    let api = api(&host.url()).await;
    let acme = api.tenant("acme").await;
    let id = receive(&acme, &file(100)).await;
    let path = path(id);
    let (answer, head) = tokio::join!(acme.get(&path), async {
        let (head, mut stream) = host.next().await;
        let moved =
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(moved.as_bytes()).await.unwrap();
        head
    });
    answer.problem(502);
    let expected = "GET //evil.example/v/a?b=c&hash=";
    assert!(head.starts_with(expected), "{head}");
    let authority = host.url().replace("http://", "host: ");
    assert!(head.contains(&authority), "{head}");
}

#[tokio::test]
async fn an_answer_of_another_length_is_refused_before_it_is_read() {
    let host = RawHost::start().await;
    let api = api(&host.url()).await;
    let acme = api.tenant("acme").await;
    let id = receive(&acme, &file(1_000_000)).await;
    let path = path(id);
    let (answer, _) = tokio::join!(acme.get(&path), async {
        let (_, mut stream) = host.next().await;
        begin(&mut stream, 1_000_000).await;
        stream
    });
    answer.problem(502);
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_given_up_and_so_is_one_that_stops() {
    let host = RawHost::start().await;
    let url = host.url();
    let settings = [
        ("WHATSAPP_MEDIA_URL", url.as_str()),
        ("MEDIA_TIMEOUT", "300"),
    ];
    let api = Api::start_with(&settings).await;
    let acme = api.tenant("acme").await;
    let id = receive(&acme, &file(1_000_000)).await;
    let path = path(id);
    let (answer, _silent) = tokio::join!(acme.get(&path), host.next());
    answer.problem(504);

    let ((got, ended_well), _stopped) =
        tokio::join!(read(acme.request(Method::GET, &path)), async {
            let (_, mut stream) = host.next().await;
            begin(&mut stream, 1_000_026).await;
            stream.write_all(&[0; 5000]).await.unwrap();
            stream
        });
    assert!(!ended_well && got < 5000, "{got}");
}

#[tokio::test]
async fn so_many_downloads_go_at_once_and_one_whose_reader_left_is_over() {
    let host = RawHost::start().await;
    let api = api(&host.url()).await;
    let acme = api.tenant("acme").await;
    let id = receive(&acme, &file(100_000_000)).await;
    let path = path(id);
    let (first, mut stream) = tokio::join!(acme.request(Method::GET, &path).send(), async {
        let (_, mut stream) = host.next().await;
        begin(&mut stream, 100_000_026).await;
        stream.write_all(&[0; 100_000]).await.unwrap();
        stream
    });
    let second = acme.get(&path).await;
    second.problem(503);
    assert!(!second.header("retry-after").is_empty());
    // Its head asks nobody.
    let head = Answer::of(acme.request(Method::HEAD, &path)).await;
    assert_eq!(head.status, 200);

    drop(first);
    // Whether the connection is closed from the other side.
    eventually(10 * SECOND, async || {
        stream.write_all(&[0; 100_000]).await.is_err()
    })
    .await;
    let (third, _) = tokio::join!(acme.request(Method::GET, &path).send(), async {
        let (_, mut stream) = host.next().await;
        begin(&mut stream, 100_000_026).await;
        stream
    });
    assert_eq!(third.unwrap().status(), 200);
}
