//! The files of a simulated WhatsApp's media host, by the simulator's control API.

use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use domain::media::{Bytes32, File, Kind};
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// The media host of a simulator.
#[derive(Debug)]
pub struct MediaHost {
    address: SocketAddr,
    http: Client,
}

impl MediaHost {
    /// That of the simulator which listens there.
    pub fn at(address: SocketAddr) -> Self {
        runtime::tls::install_provider();
        let http = Client::builder().no_proxy().build();
        Self {
            address,
            http: http.expect("an HTTP client"),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Encrypts a file and puts it there.
    pub async fn put(&self, kind: Kind, content: &[u8]) -> File {
        let file = json!({"kind": kind.as_str(), "base64": BASE64_STANDARD.encode(content)});
        let made = self.ask(Method::POST, "/admin/media", &file).await;
        let text = |name: &str| made[name].as_str().expect("a text");
        let bytes = |name: &str| {
            let bytes = BASE64_STANDARD.decode(text(name)).expect("base64");
            Bytes32::try_from(bytes.as_slice()).expect("32 bytes")
        };
        File {
            kind,
            direct_path: text("direct_path").to_owned(),
            media_key: bytes("media_key"),
            file_enc_sha256: bytes("file_enc_sha256"),
            file_sha256: bytes("file_sha256"),
            size: made["file_length"].as_u64().expect("a number"),
            mimetype: Some(text("mimetype").to_owned()),
            file_name: None,
        }
    }

    /// One byte of it is another from now on.
    pub async fn corrupt(&self, file: &File) {
        let path = format!("/admin/media{}/corrupt", file.direct_path);
        self.ask(Method::POST, &path, &json!({})).await;
    }

    /// It is refused with that status from now on.
    pub async fn forget(&self, file: &File, status: u16) {
        let path = format!("/admin/media{}?status={status}", file.direct_path);
        self.ask(Method::DELETE, &path, &json!({})).await;
    }

    /// Everything is refused with that status; 0 ends it.
    pub async fn fail_with(&self, status: u16) {
        let faults = json!({ "media_status": status });
        self.ask(Method::POST, "/admin/faults", &faults).await;
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.url());
        let answer = self.http.request(method, url).json(body).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let answer = answer.unwrap_or_else(|error| panic!("the simulator: {error}"));
        answer.json().await.expect("JSON")
    }
}
