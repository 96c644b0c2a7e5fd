use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use simulator::{Config, Simulator};
use tokio_rustls::TlsConnector;
use tracing_subscriber::EnvFilter;
use whatsapp_rust::bot::{Bot, BotHandle};
use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};
use whatsapp_rust::transport::{Connector, TokioWebSocketTransportFactory};
use whatsapp_rust::types::events::Event;
use whatsapp_rust::types::message::{MessageCategory, MessageInfo};
use whatsapp_rust::wacore::store::InMemoryBackend;
use whatsapp_rust::wacore::types::events::InboundMessage;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Client, InboundDurabilityHook, async_trait};

pub(crate) const VERSION: (u32, u32, u32) = (2, 3000, 1_030_000_000);
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn text(text: &str) -> wa::Message {
    wa::Message {
        conversation: Some(text.to_owned()),
        ..Default::default()
    }
}

pub(crate) async fn simulator(state: Option<&Path>) -> Simulator {
    start_at("127.0.0.1:0", state).await.unwrap()
}

pub(crate) async fn start_at(listen: &str, state: Option<&Path>) -> Result<Simulator> {
    let config = Config {
        listen: listen.parse()?,
        state: state.map(Path::to_owned),
    };
    Simulator::start(config).await
}

/// The control API, as any HTTP client sees it.
#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) address: String,
    http: reqwest::Client,
}

impl Control {
    pub(crate) fn of(simulator: &Simulator) -> Self {
        Self::at(&simulator.address().to_string())
    }

    pub(crate) fn at(address: &str) -> Self {
        // `RUST_LOG=debug` shows what both sides say.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        // Plain http only, but reqwest wants a provider all the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            address: address.to_owned(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    pub(crate) async fn try_post(&self, path: &str, body: impl Into<String>) -> (u16, Value) {
        let url = format!("http://{}{path}", self.address);
        let answer = self.http.post(url).body(body.into()).send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json().await.unwrap_or_default(),
        )
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<String>) -> Value {
        let (status, answer) = self.try_post(path, body).await;
        assert_eq!(status, 200, "POST {path}: {answer}");
        answer
    }

    pub(crate) async fn delete(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.address);
        let answer = self.http.delete(url).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "DELETE {path}");
        answer.json().await.unwrap()
    }

    /// Status, range and bytes of a part of a file.
    pub(crate) async fn fetch(&self, path: &str, range: &str) -> (u16, String, Vec<u8>) {
        let url = format!("http://{}{path}", self.address);
        let answer = self.http.get(url).header("range", range).send();
        let answer = answer.await.unwrap();
        let place = answer.headers().get("content-range");
        let place = place.map(|place| place.to_str().unwrap().to_owned());
        (
            answer.status().as_u16(),
            place.unwrap_or_default(),
            answer.bytes().await.unwrap().to_vec(),
        )
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.address);
        let answer = self.http.get(url).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "GET {path}");
        answer.json().await.unwrap()
    }

    /// Contacts write; the ids of what they wrote.
    pub(crate) async fn send(&self, request: Value) -> Vec<String> {
        let answer = self.post("/admin/messages", request.to_string()).await;
        let ids = answer["ids"].as_array().unwrap();
        ids.iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect()
    }

    /// A message as the ledger has it.
    pub(crate) async fn message(&self, id: &str) -> Value {
        let all = self.get("/admin/messages").await;
        let all = all.as_array().unwrap();
        all.iter()
            .find(|message| message["id"] == id)
            .unwrap()
            .clone()
    }

    pub(crate) async fn acked(&self, id: &str) -> Value {
        eventually("the receipt", || async {
            let message = self.message(id).await;
            (!message["acked_at"].is_null()).then_some(message)
        })
        .await
    }

    /// Waits until so much waits for the account's first device.
    pub(crate) async fn undelivered(&self, phone: &str, count: usize) {
        eventually("what waits", || async {
            let accounts = self.get("/admin/accounts").await;
            let accounts = accounts.as_array().unwrap();
            let account = accounts.iter().find(|account| account["phone"] == phone)?;
            (account["devices"][0]["undelivered"] == count).then_some(())
        })
        .await;
    }

    /// Waits until that account has so many live devices.
    pub(crate) async fn live(&self, phone: &str, devices: usize) {
        eventually("the account's devices", || async {
            let accounts = self.get("/admin/accounts").await;
            let accounts = accounts.as_array().unwrap();
            let account = accounts.iter().find(|account| account["phone"] == phone)?;
            let all = account["devices"].as_array().unwrap();
            let live = all.iter().filter(|device| device["live"] == true).count();
            (live == devices).then_some(())
        })
        .await;
    }
}

/// The client's way to the media hosts, which it knows by https only.
struct PlainHttp(reqwest::Client);

#[async_trait]
impl HttpClient for PlainHttp {
    async fn execute(&self, request: HttpRequest) -> Result<HttpResponse> {
        let url = request.url.replacen("https://", "http://", 1);
        let mut call = self.0.request(request.method.parse()?, url);
        for (name, value) in &request.headers {
            call = call.header(name, value);
        }
        if let Some(body) = request.body {
            call = call.body(body);
        }
        let answer = call.send().await?;
        Ok(HttpResponse {
            status_code: answer.status().as_u16(),
            body: answer.bytes().await?.to_vec(),
        })
    }
}

/// What a client was given.
#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) info: Arc<MessageInfo>,
    pub(crate) message: Arc<wa::Message>,
}

impl Received {
    pub(crate) fn text(&self) -> &str {
        self.message.conversation.as_deref().unwrap_or_default()
    }
}

#[derive(Default)]
struct Seen {
    qr: Vec<String>,
    received: Vec<Received>,
    undecryptable: Vec<String>,
    connected: usize,
    logged_out: usize,
    replaced: usize,
    receipts: Vec<String>,
    /// Everything, in order.
    events: Vec<Arc<Event>>,
}

/// The upstream client with everything it reported.
pub(crate) struct Phone {
    pub(crate) client: Arc<Client>,
    backend: Arc<InMemoryBackend>,
    handle: Option<BotHandle>,
    seen: Arc<Mutex<Seen>>,
}

struct Hook {
    seen: Arc<Mutex<Seen>>,
}

#[async_trait]
impl InboundDurabilityHook for Hook {
    async fn on_messages(&self, _client: Arc<Client>, batch: &[InboundMessage]) -> Result<()> {
        let mut seen = self.seen.lock().unwrap();
        let batch = batch
            .iter()
            .filter(|m| m.info.category != MessageCategory::Peer);
        seen.received.extend(batch.map(|m| Received {
            info: m.info.clone(),
            message: m.message.clone(),
        }));
        Ok(())
    }
}

impl Phone {
    /// Over TLS, trusting that certificate alone.
    pub(crate) async fn start_tls(address: &str, certificate: &str) -> Self {
        let mut roots = RootCertStore::empty();
        let pem = CertificateDer::from_pem_slice(certificate.as_bytes());
        roots.add(pem.unwrap()).unwrap();
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = Connector::Rustls(TlsConnector::from(Arc::new(config)));
        let url = format!("wss://{address}/ws/chat");
        let transport = TokioWebSocketTransportFactory::new()
            .with_url(url)
            .with_connector(connector);
        Self::over(transport, Arc::new(InMemoryBackend::new()), None).await
    }

    pub(crate) async fn start(address: &str) -> Self {
        Self::with(address, Arc::new(InMemoryBackend::new()), None).await
    }

    pub(crate) async fn named(address: &str, push_name: &str) -> Self {
        Self::with(address, Arc::new(InMemoryBackend::new()), Some(push_name)).await
    }

    async fn with(address: &str, backend: Arc<InMemoryBackend>, push_name: Option<&str>) -> Self {
        let url = format!("ws://{address}/ws/chat");
        let transport = TokioWebSocketTransportFactory::new().with_url(url);
        Self::over(transport, backend, push_name).await
    }

    async fn over(
        transport: TokioWebSocketTransportFactory,
        backend: Arc<InMemoryBackend>,
        push_name: Option<&str>,
    ) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let events = seen.clone();
        let mut builder = Bot::builder()
            .with_backend_arc(backend.clone())
            .with_transport_factory(transport)
            .with_http_client(PlainHttp(
                reqwest::Client::builder().no_proxy().build().unwrap(),
            ))
            .with_version(VERSION)
            .skip_history_sync()
            .with_inbound_durability_hook(Hook { seen: seen.clone() })
            .on_event(move |event, _client| {
                let mut seen = events.lock().unwrap();
                note(&mut seen, &event);
                seen.events.push(event);
                std::future::ready(())
            });
        if let Some(name) = push_name {
            builder = builder.with_push_name(name);
        }
        let bot = builder.build().await.unwrap();
        let client = bot.client();
        Self {
            client,
            backend,
            handle: Some(bot.spawn()),
            seen,
        }
    }

    /// Scans its QR code and waits until it is connected. Its number.
    pub(crate) async fn link(&self, control: &Control, phone: Option<&str>) -> String {
        let code = self.qr().await;
        let path = match phone {
            Some(phone) => format!("/admin/mock-phone/scan-qr?phone={phone}"),
            None => "/admin/mock-phone/scan-qr".to_owned(),
        };
        let answer = control.post(&path, code).await;
        self.connected(1).await;
        answer["phone"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn qr(&self) -> String {
        eventually("a QR code", || async {
            self.seen.lock().unwrap().qr.last().cloned()
        })
        .await
    }

    /// Waits for that many `Connected` in all.
    pub(crate) async fn connected(&self, times: usize) {
        eventually("the connection", || async {
            (self.seen.lock().unwrap().connected >= times).then_some(())
        })
        .await;
    }

    pub(crate) fn times_connected(&self) -> usize {
        self.seen.lock().unwrap().connected
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.seen.lock().unwrap().received.clone()
    }

    /// Waits for that many messages.
    pub(crate) async fn receives(&self, count: usize) -> Vec<Received> {
        eventually("messages", || async {
            Some(self.received()).filter(|all| all.len() >= count)
        })
        .await
    }

    pub(crate) async fn cannot_read(&self, id: &str) {
        eventually("an undecryptable message", || async {
            let seen = self.seen.lock().unwrap();
            seen.undecryptable
                .iter()
                .any(|known| known == id)
                .then_some(())
        })
        .await;
    }

    pub(crate) async fn logged_out(&self) {
        eventually("the logout", || async {
            (self.seen.lock().unwrap().logged_out > 0).then_some(())
        })
        .await;
    }

    pub(crate) async fn replaced(&self) {
        eventually("the replacement", || async {
            (self.seen.lock().unwrap().replaced > 0).then_some(())
        })
        .await;
    }

    pub(crate) async fn receipt_for(&self, id: &str) {
        eventually("a delivery receipt", || async {
            let seen = self.seen.lock().unwrap();
            seen.receipts.iter().any(|known| known == id).then_some(())
        })
        .await;
    }

    pub(crate) fn events(&self) -> Vec<Arc<Event>> {
        self.seen.lock().unwrap().events.clone()
    }

    /// Waits for an event of which `pick` makes something.
    pub(crate) async fn event<T>(&self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        eventually(what, || async {
            let seen = self.seen.lock().unwrap();
            seen.events.iter().find_map(|event| pick(event))
        })
        .await
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown().await;
        }
    }

    /// The same device in a new process.
    pub(crate) async fn restart(&mut self, address: &str) -> Self {
        self.stop().await;
        Self::with(address, self.backend.clone(), None).await
    }

    /// A second process with the same keys, while the first goes on.
    pub(crate) async fn twin(&self, address: &str) -> Self {
        Self::with(address, self.backend.clone(), None).await
    }
}

fn note(seen: &mut Seen, event: &Event) {
    match event {
        Event::PairingQrCode(qr) => seen.qr.push(qr.code.clone()),
        Event::Connected(_) => seen.connected += 1,
        Event::LoggedOut(_) => seen.logged_out += 1,
        Event::StreamReplaced(_) => seen.replaced += 1,
        Event::UndecryptableMessage(message) => {
            seen.undecryptable.push(message.info.id.to_string());
        }
        Event::Receipt(receipt) => {
            seen.receipts
                .extend(receipt.message_ids.iter().map(ToString::to_string));
        }
        _ => {}
    }
}
