//! How a server turns a session away or ends it.

use domain::connection::{Connection, Desired, Pairing};
use serde_json::{Value, json};

use super::scene::Scene;
use crate::rig::{NUMBER, Rig};

/// The victim's logins fail with that reason from now on.
async fn fails_with(scene: &Scene, reason: u16) {
    let faults = json!({"account": NUMBER, "failure": reason, "ban_seconds": 7200});
    scene.faults(faults).await;
    scene.hang_up().await;
}

async fn stream_error(scene: &Scene, error: Value) {
    let path = format!("/admin/accounts/{NUMBER}/stream-error");
    scene.rig.post(&path, error.to_string()).await;
}

/// It says why, in the row and as an event, and is not begun again by itself.
async fn ends(scene: &Scene, status: &str, reason: &str) {
    let row = scene.until_row(status, Some(reason)).await;
    assert_eq!(row.desired, status);
    let event = match status {
        "logged_out" => "connection.logged_out",
        _ => "connection.closed",
    };
    assert_eq!(scene.told().await, (event.to_owned(), reason.into()));
    scene.others_are_untouched().await;
}

async fn device_keys(rig: &Rig, connection: &Connection) -> bool {
    rig.count(&format!(
        "protocol_devices WHERE connection_id = '{}'",
        connection.id
    ))
    .await
        > 0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_is_final_ends_the_session_with_its_reason() {
    for (code, status, reason) in [
        (401, "logged_out", "unlinked"),
        (403, "logged_out", "account_locked"),
        (406, "logged_out", "banned"),
        (409, "disconnected", "refused"),
    ] {
        let scene = Scene::set().await;
        fails_with(&scene, code).await;
        ends(&scene, status, reason).await;
        let kept = device_keys(&scene.rig, &scene.victim).await;
        assert_eq!(kept, status == "disconnected", "{code}");
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_for_a_while_is_asked_again() {
    let scene = Scene::set().await;
    fails_with(&scene, 503).await;
    scene
        .until_row("reconnecting", Some("connection_lost"))
        .await;
    scene
        .faults(json!({"reset": true, "account": NUMBER}))
        .await;
    scene.is_back().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_for_a_while_is_waited_for() {
    let scene = Scene::set().await;
    fails_with(&scene, 402).await;
    let row = scene
        .until_row("reconnecting", Some("temporarily_banned"))
        .await;
    let left = row.retry_at.unwrap() - row.last_update;
    assert_eq!(left.num_seconds(), 7200);
    assert_eq!(row.desired, "connected");
    let events = scene.rig.events(&scene.webhook).await;
    let told = &events.last().unwrap().metadata;
    assert_eq!(told["retry_in_seconds"], 7200.0);
    let is_free = async || scene.rig.row(row.id).await.owner.is_none();
    scene.until("given up", is_free).await;
    let rejected = scene.stat("logins_rejected").await;

    // Whoever asks for it can try sooner; WhatsApp still says no.
    let rig = &scene.rig;
    let connect = async || {
        let phone = NUMBER.parse().unwrap();
        let mut conn = rig.conn().await;
        Connection::connect(&mut conn, rig.client_id, row.user_id, &phone, Pairing::Qr)
            .await
            .unwrap();
    };
    connect().await;
    let again = async || scene.stat("logins_rejected").await > rejected;
    scene.until("tried again", again).await;
    scene
        .until_row("reconnecting", Some("temporarily_banned"))
        .await;

    scene
        .faults(json!({"reset": true, "account": NUMBER}))
        .await;
    rig.run_sql("UPDATE whatsapp_connections SET retry_at = now() + interval '1 second'")
        .await;
    scene.is_back().await;
    assert_eq!(rig.row(row.id).await.retry_at, None);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_waits_for_the_end_of_a_ban_can_be_ended() {
    let scene = Scene::set().await;
    fails_with(&scene, 402).await;
    scene
        .until_row("reconnecting", Some("temporarily_banned"))
        .await;
    scene.rig.desire(&scene.victim, Desired::Disconnected).await;
    scene.until_row("disconnected", None).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_too_old_is_said_and_tried_again() {
    let scene = Scene::set().await;
    fails_with(&scene, 405).await;
    let row = scene
        .until_row("reconnecting", Some("client_outdated"))
        .await;
    assert!(row.retry_at.is_some() && row.desired == "connected");
    scene
        .faults(json!({"reset": true, "account": NUMBER}))
        .await;
    scene
        .rig
        .run_sql("UPDATE whatsapp_connections SET retry_at = now()")
        .await;
    scene.is_back().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_comes_back_or_says_why_it_does_not() {
    let scene = Scene::set().await;
    for code in ["515", "503"] {
        let logins = scene.stat("logins").await;
        stream_error(&scene, json!({"code": code})).await;
        let again = async || scene.stat("logins").await > logins;
        scene.until("logged in again", again).await;
        scene.is_back().await;
    }
    stream_error(&scene, json!({"conflict": "replaced"})).await;
    ends(&scene, "disconnected", "replaced").await;
    scene.end().await;

    for error in [
        json!({"code": "516"}),
        json!({"conflict": "device_removed"}),
    ] {
        let scene = Scene::set().await;
        stream_error(&scene, error).await;
        ends(&scene, "logged_out", "unlinked").await;
        assert!(!device_keys(&scene.rig, &scene.victim).await);
        scene.end().await;
    }
}
