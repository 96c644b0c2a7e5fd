//! Files at media hosts: the simulated WhatsApp's, and one that does what no simulator does.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use domain::connection::Connection;
use domain::inbox;
use domain::keyring::Keyring;
use domain::media::{Bytes32, File, Kind};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use simulator::Simulator;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::world::{self, KEY, NUMBER, Tenant};

/// The media host of a simulated WhatsApp.
pub(crate) struct MediaHost {
    simulator: Simulator,
    http: Client,
}

impl MediaHost {
    pub(crate) async fn start() -> Self {
        let simulator = Simulator::start(simulator::Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            state: None,
        });
        Self {
            simulator: simulator.await.unwrap(),
            http: world::http(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.simulator.address())
    }

    /// Encrypts a file and puts it there.
    pub(crate) async fn put(&self, kind: Kind, content: &[u8]) -> File {
        let file = json!({"kind": kind.as_str(), "base64": BASE64_STANDARD.encode(content)});
        let made = self.ask(Method::POST, "/admin/media", &file).await;
        let bytes = |name: &str| {
            let text = made[name].as_str().unwrap();
            Bytes32::try_from(BASE64_STANDARD.decode(text).unwrap().as_slice()).unwrap()
        };
        File {
            kind,
            direct_path: made["direct_path"].as_str().unwrap().to_owned(),
            media_key: bytes("media_key"),
            file_enc_sha256: bytes("file_enc_sha256"),
            file_sha256: bytes("file_sha256"),
            size: made["file_length"].as_u64().unwrap(),
            mimetype: Some(made["mimetype"].as_str().unwrap().to_owned()),
            file_name: None,
        }
    }

    pub(crate) async fn corrupt(&self, file: &File) {
        let path = format!("/admin/media{}/corrupt", file.direct_path);
        self.ask(Method::POST, &path, &json!({})).await;
    }

    pub(crate) async fn forget(&self, file: &File, status: u16) {
        let path = format!("/admin/media{}?status={status}", file.direct_path);
        self.ask(Method::DELETE, &path, &json!({})).await;
    }

    pub(crate) async fn fail_with(&self, status: u16) {
        let faults = json!({ "media_status": status });
        self.ask(Method::POST, "/admin/faults", &faults).await;
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.url());
        let answer = self.http.request(method, url).json(body).send().await;
        let answer = answer.unwrap().error_for_status().unwrap();
        answer.json().await.unwrap()
    }
}

/// A message with that file arrives; returns its id.
pub(crate) async fn receive(tenant: &Tenant<'_>, file: &File) -> Uuid {
    let connection = tenant.connection(NUMBER).await;
    receive_on(tenant, &connection, file).await
}

/// The same on a connection that is there.
pub(crate) async fn receive_on(tenant: &Tenant<'_>, connection: &Connection, file: &File) -> Uuid {
    let mut message = world::message(connection, "3EB0F11E");
    let keyring = Keyring::parse(KEY).unwrap();
    message.media = Some(file.seal(&keyring, message.id));
    let mut conn = tenant.conn().await;
    inbox::accept(&mut conn, &[&message]).await.unwrap();
    message.id
}

/// Answers with whatever a test writes.
pub(crate) struct RawHost(TcpListener);

impl RawHost {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// The next request's head, and the way to answer it.
    pub(crate) async fn next(&self) -> (String, TcpStream) {
        let (mut stream, _) = self.0.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (String::from_utf8(head).unwrap(), stream)
    }
}

/// The head of an answer with a file.
pub(crate) async fn begin(stream: &mut TcpStream, length: u64) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}
