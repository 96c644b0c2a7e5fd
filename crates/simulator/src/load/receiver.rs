//! The webhook of a run: answers at once, and remembers when which message came.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::{Context as _, Result};
use serde_json::Value;

/// One delivery has at most so many bytes.
const MAX_BODY: usize = 16 << 20;

/// By message id: when it first came (unix milliseconds), and how often.
pub(super) type Received = HashMap<String, (i64, u32)>;

pub(super) struct Receiver {
    address: SocketAddr,
    received: web::Data<Mutex<Received>>,
    server: ServerHandle,
}

impl Receiver {
    pub(super) fn start(listen: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(listen);
        let listener = listener.with_context(|| format!("cannot receive at {listen}"))?;
        let address = listener.local_addr()?;
        let received = web::Data::new(Mutex::new(Received::new()));
        let shared = received.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .app_data(web::PayloadConfig::new(MAX_BODY))
                .default_service(web::to(receive))
        })
        .workers(2)
        .disable_signals()
        .shutdown_timeout(1)
        .listen(listener)?
        .run();
        let handle = server.handle();
        tokio::spawn(server);
        Ok(Self {
            address,
            received,
            server: handle,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/load", self.address)
    }

    pub(super) fn received(&self) -> Received {
        self.received.lock().expect("no panic here").clone()
    }

    pub(super) async fn stop(self) {
        self.server.stop(true).await;
    }
}

async fn receive(received: web::Data<Mutex<Received>>, body: web::Bytes) -> HttpResponse {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.map_or(0, |since| since.as_millis() as i64);
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return HttpResponse::BadRequest().finish();
    };
    // One event, or a batch of them.
    let single = std::slice::from_ref(&body);
    let events = body["events"].as_array().map_or(single, Vec::as_slice);
    let mut received = received.lock().expect("no panic here");
    for event in events {
        if event["event"] == "message"
            && let Some(id) = event["message_id"].as_str()
        {
            let (_, times) = received.entry(id.to_owned()).or_insert((now, 0));
            *times += 1;
        }
    }
    HttpResponse::Ok().finish()
}
