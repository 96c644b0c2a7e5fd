//! A server that ends or stalls a connection on its way to a session.

use serde_json::{Value, json};

use super::scene::Scene;
use crate::rig::NUMBER;

/// Before the handshake is over nobody knows whose connection it is.
const STEPS: [(&str, bool); 6] = [
    ("upgrade", false),
    ("hello", false),
    ("server_hello", false),
    ("finish", true),
    ("success", true),
    ("passive", true),
];

fn fault(kind: &str, (step, own): (&str, bool)) -> Value {
    match own {
        true => json!({kind: step, "account": NUMBER}),
        false => json!({kind: step}),
    }
}

/// The victim's next connections come to that step and no further. The others stay connected.
async fn spoil(scene: &Scene, fault: Value) {
    let before = scene.stat("connections_spoiled").await;
    scene.faults(fault).await;
    scene.hang_up().await;
    let spoiled = async || scene.stat("connections_spoiled").await > before;
    scene.until("spoiled", spoiled).await;
    scene
        .until_row("reconnecting", Some("connection_lost"))
        .await;
    assert_eq!(
        scene.told().await,
        ("connection.closed".to_owned(), "connection_lost".into())
    );
}

async fn recovers(scene: &Scene) {
    scene
        .faults(json!({"reset": true, "account": NUMBER}))
        .await;
    scene.faults(json!({"reset": true})).await;
    scene.is_back().await;
    assert_eq!(scene.told().await.0, "connection.open");
}

/// A session of its own for each: the client's pauses grow until it was connected for half a minute.
async fn closes_at(steps: &[(&str, bool)]) {
    for step in steps {
        let scene = Scene::set().await;
        spoil(&scene, fault("close_at", *step)).await;
        recovers(&scene).await;
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_comes_back_after_every_step_of_the_handshake_at_which_it_is_cut_off() {
    closes_at(&STEPS[..3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_comes_back_after_every_step_of_the_login_at_which_it_is_cut_off() {
    closes_at(&STEPS[3..]).await;
}

async fn stalls_at(step: &str) {
    let scene = Scene::with_silence(8).await;
    let step = STEPS.into_iter().find(|(name, _)| *name == step).unwrap();
    spoil(&scene, fault("stall_at", step)).await;
    recovers(&scene).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_comes_back_after_a_server_that_does_not_answer_the_upgrade() {
    stalls_at("upgrade").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_comes_back_after_a_server_that_does_not_answer_a_hello() {
    stalls_at("hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_comes_back_after_a_server_that_falls_silent_in_the_handshake() {
    stalls_at("server_hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_comes_back_after_a_server_that_falls_silent_after_the_handshake() {
    stalls_at("finish").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_comes_back_after_a_server_that_does_not_say_whether_it_is_logged_in() {
    stalls_at("success").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_comes_back_after_a_server_that_does_not_let_it_be_active() {
    stalls_at("passive").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_reach_whatsapp_is_told_so_until_there_is_a_code() {
    let scene = Scene::set().await;
    scene.faults(json!({"refuse_connections": true})).await;
    let rig = &scene.rig;
    let number = "5511988880003";
    let webhook = rig
        .webhook_for(rig.client_id, number, &["connection.*"])
        .await;
    let new = rig.connect_for(rig.client_id, number).await;
    let unreachable = async || rig.row(new.id).await.reason.as_deref() == Some("unreachable");
    scene.until("unreachable", unreachable).await;
    assert_eq!(rig.row(new.id).await.status, "reconnecting");
    let events = rig.events(&webhook).await;
    assert_eq!(events[0].event_type, "connection.closed");
    assert_eq!(events[0].metadata["reason"], "unreachable");

    scene.faults(json!({"reset": true})).await;
    let shown = async || rig.row(new.id).await.qr_code.is_some();
    scene.until("shown a code", shown).await;
    let row = rig.row(new.id).await;
    assert_eq!(row.reason, None);
    // The library turns its codes for minutes after the end of a client that nobody scanned.
    rig.scan(&row.qr_code.unwrap(), number).await;
    rig.wait_for(new.id, "connected").await;
    scene.end().await;
}
