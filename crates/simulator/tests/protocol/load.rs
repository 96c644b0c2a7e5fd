//! The load tool against a gateway reduced to what the tool sees of it.

use std::collections::HashMap;
use std::process::{Command, Output};
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::harness::{Control, Phone, simulator};

/// Sessions by user, webhooks by number.
struct Gateway {
    simulator: String,
    sessions: Mutex<HashMap<String, (String, Arc<Phone>)>>,
    webhooks: Mutex<HashMap<String, String>>,
    /// Delivers nothing of what comes after so many.
    forgets_after: usize,
    /// Delivers everything so often.
    times: usize,
}

async fn connect(gateway: web::Data<Gateway>, body: web::Json<Value>) -> HttpResponse {
    let user = body["user_id"].as_str().unwrap().to_owned();
    let number = body["phone_number"].as_str().unwrap().to_owned();
    let phone = Arc::new(Phone::start(&gateway.simulator).await);
    phone.qr().await;
    let mut sessions = gateway.sessions.lock().await;
    sessions.insert(user, (number, phone));
    HttpResponse::Ok().json(json!({"status": "reconnecting"}))
}

async fn qr(gateway: web::Data<Gateway>, user: web::Path<String>) -> HttpResponse {
    let sessions = gateway.sessions.lock().await;
    match sessions.get(&*user) {
        Some((_, phone)) => HttpResponse::Ok().body(phone.qr().await),
        None => HttpResponse::NotFound().finish(),
    }
}

async fn status(gateway: web::Data<Gateway>, user: web::Path<String>) -> HttpResponse {
    let sessions = gateway.sessions.lock().await;
    let connected = sessions[&*user].1.times_connected() > 0;
    let status = if connected {
        "connected"
    } else {
        "reconnecting"
    };
    HttpResponse::Ok().json(json!({ "status": status }))
}

async fn register(gateway: web::Data<Gateway>, body: web::Json<Value>) -> HttpResponse {
    let number = body["phone_number"].as_str().unwrap().to_owned();
    let url = body["webhook_url"].as_str().unwrap().to_owned();
    let mut webhooks = gateway.webhooks.lock().await;
    webhooks.insert(number.clone(), url.clone());
    drop(webhooks);
    let sessions = gateway.sessions.lock().await;
    let phone = sessions.values().find(|(known, _)| *known == number);
    let phone = phone.unwrap().1.clone();
    drop(sessions);
    tokio::spawn(deliver(gateway.into_inner(), phone, url));
    HttpResponse::Created().json(json!({"webhook": {"id": number}}))
}

async fn deliver(gateway: Arc<Gateway>, phone: Arc<Phone>, url: String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for turn in 0..gateway.forgets_after {
        let message = &phone.receives(turn + 1).await[turn];
        let event = json!({"event": "message", "message_id": message.info.id});
        for _ in 0..gateway.times {
            http.post(&url).json(&event).send().await.unwrap();
        }
    }
}

async fn done() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "success"}))
}

fn start(gateway: Gateway) -> (String, ServerHandle) {
    let gateway = web::Data::new(gateway);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(gateway.clone())
            .route("/api/whatsapp/connect", web::post().to(connect))
            .route("/api/whatsapp/qr/{user}", web::get().to(qr))
            .route("/api/whatsapp/status/{user}", web::get().to(status))
            .route("/api/whatsapp/logout", web::post().to(done))
            .route("/api/webhooks/register", web::post().to(register))
            .route("/api/webhooks/{id}", web::delete().to(done))
    })
    .workers(1)
    .disable_signals()
    .bind("127.0.0.1:0")
    .unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    (format!("http://{address}"), handle)
}

async fn load(api: &str, control: &Control, patience: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recado-simulator"));
    let simulator = format!("http://{}", control.address);
    command.args([
        "load",
        "--api",
        api,
        "--token",
        "t",
        "--simulator",
        &simulator,
    ]);
    command.args([
        "--accounts",
        "3",
        "--rate",
        "60",
        "--duration",
        "1s",
        "--json",
    ]);
    command.args(["--patience", patience]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    output.await.unwrap()
}

fn gateway(control: &Control, forgets_after: usize, times: usize) -> Gateway {
    Gateway {
        simulator: control.address.clone(),
        sessions: Mutex::default(),
        webhooks: Mutex::default(),
        forgets_after,
        times,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_linked_written_and_measured() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let (api, server) = start(gateway(&control, 20, 2));
    let output = load(&api, &control, "30s").await;
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = [
        "numbers",
        "sent",
        "acked",
        "received",
        "unacked",
        "undelivered",
    ];
    assert_eq!(
        figures.map(|name| report[name].as_u64().unwrap()),
        [3, 60, 60, 60, 0, 0]
    );
    // The second time a message comes may be after the look at what came.
    assert!(report["duplicates"].as_u64().unwrap() >= 57, "{report}");
    assert!(report["send_to_ack_ms"]["p99"].is_u64(), "{report}");
    assert!(report["send_to_receiver_ms"]["max"].is_u64(), "{report}");
    server.stop(false).await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_delivered_is_named_and_fails_the_run() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let (api, server) = start(gateway(&control, 19, 1));
    let output = load(&api, &control, "1s").await;
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["unacked"], &report["undelivered"]),
        (&json!(0), &json!(3))
    );
    assert_eq!(report["lost"].as_array().unwrap().len(), 3);
    server.stop(false).await;
    simulator.stop().await;
}
