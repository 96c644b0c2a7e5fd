use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use whatsapp_rust::Jid;
use whatsapp_rust::download::{DownloadParams, MediaType};
use whatsapp_rust::features::{MediaRetryResult, MediaReuploadRequest};
use whatsapp_rust::upload::UploadOptions;

use crate::harness::{Control, Phone, simulator};

fn bytes(text: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap()
}

fn params(file: &Value, kind: MediaType) -> DownloadParams {
    DownloadParams::encrypted(
        file["direct_path"].as_str().unwrap(),
        &bytes(&file["media_key"]),
        &bytes(&file["file_sha256"]),
        &bytes(&file["file_enc_sha256"]),
        file["file_length"].as_u64().unwrap(),
        kind,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_uploads_a_file_and_fetches_it_again() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    phone.link(&control, None).await;
    // A small one, and one so large that the client first asks how far it got.
    for size in [1_000, 6 << 20] {
        let content: Vec<u8> = (0..size).map(|at: usize| at as u8).collect();
        for _ in 0..2 {
            let options = UploadOptions::new();
            let uploaded = phone
                .client
                .upload(content.clone(), MediaType::Video, options)
                .await
                .unwrap();
            let file = DownloadParams::encrypted(
                uploaded.direct_path.as_str(),
                &uploaded.media_key,
                &uploaded.file_sha256,
                &uploaded.file_enc_sha256,
                uploaded.file_length,
                MediaType::Video,
            );
            let fetched = phone.client.download_from_params(&file).await.unwrap();
            assert!(fetched == content);
        }
    }
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_made_spoiled_and_taken_away() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    phone.link(&control, None).await;
    let content = BASE64_STANDARD.encode("a picture");
    let new = json!({"kind": "image", "mimetype": "image/png", "base64": content});
    let file = control.post("/admin/media", new.to_string()).await;
    assert_eq!(file["mimetype"], "image/png");
    let image = params(&file, MediaType::Image);
    let fetched = phone.client.download_from_params(&image).await.unwrap();
    assert_eq!(fetched, b"a picture");

    let path = file["direct_path"].as_str().unwrap();
    let (status, place, part) = control.fetch(path, "bytes=4-7").await;
    assert_eq!(
        (status, place.as_str(), part.len()),
        (206, "bytes 4-7/26", 4)
    );
    assert_eq!(control.fetch(path, "bytes=26-").await.0, 416);

    control
        .post("/admin/faults", r#"{"media_status": 503}"#)
        .await;
    assert!(phone.client.download_from_params(&image).await.is_err());
    control
        .post("/admin/faults", r#"{"media_status": 0}"#)
        .await;
    control
        .post(&format!("/admin/media{path}/corrupt"), "")
        .await;
    let error = phone.client.download_from_params(&image).await.unwrap_err();
    assert!(error.to_string().contains("MAC"), "{error:#}");
    control.delete(&format!("/admin/media{path}")).await;
    assert_eq!(control.fetch(path, "").await.0, 410);
    assert!(phone.client.download_from_params(&image).await.is_err());
    let listed = control.get("/admin/media").await;
    assert_eq!(listed[0]["gone"], 410);
    assert_eq!(control.fetch("/v/image/nothing_n.enc", "").await.0, 404);
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_phone_puts_a_file_back_that_is_gone_if_it_still_has_it() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    phone.link(&control, None).await;
    let new = json!({"kind": "image", "size": 5_000}).to_string();
    let mut file = control.post("/admin/media", new).await;
    let path = file["direct_path"].as_str().unwrap().to_owned();
    control
        .delete(&format!("/admin/media{path}?status=404"))
        .await;
    let key = bytes(&file["media_key"]);
    let chat = Jid::pn("5511888888888");
    let ask = async |key: &[u8]| {
        let request = MediaReuploadRequest {
            msg_id: "3EB0PICTURE",
            chat_jid: &chat,
            media_key: key,
            is_from_me: false,
            participant: None,
        };
        phone
            .client
            .media_reupload()
            .request(&request)
            .await
            .unwrap()
    };
    let nothing = ask(&[7; 32]).await;
    assert!(matches!(nothing, MediaRetryResult::NotFound));
    let MediaRetryResult::Success { direct_path } = ask(&key).await else {
        panic!("it was not put back");
    };
    file["direct_path"] = direct_path.into();
    let image = params(&file, MediaType::Image);
    let fetched = phone.client.download_from_params(&image).await.unwrap();
    assert_eq!(fetched.len(), 5_000);

    control
        .post("/admin/faults", r#"{"media_lost": true}"#)
        .await;
    assert!(matches!(ask(&key).await, MediaRetryResult::NotFound));
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_are_refused() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    for (path, body, status) in [
        ("/admin/media", json!({"kind": "image"}), 400),
        ("/admin/media", json!({"kind": "smell", "size": 1}), 400),
        (
            "/admin/media",
            json!({"kind": "image", "size": 1, "base64": ""}),
            400,
        ),
        (
            "/admin/media",
            json!({"kind": "image", "size": 1, "width": 1}),
            400,
        ),
        ("/admin/media/v/image/x_n.enc/corrupt", json!({}), 404),
        ("/mms/image/AAAA", json!({}), 401),
    ] {
        let (answered, answer) = control.try_post(path, body.to_string()).await;
        assert_eq!(answered, status, "{path} {body}: {answer}");
    }
    let file = json!({"kind": "document", "size": 100_000}).to_string();
    let file = control.post("/admin/media", file).await;
    assert_eq!(file["file_length"], 100_000);
    simulator.stop().await;
}
