//! A server that stays there and says nothing, or nothing that helps.

use serde_json::json;

use super::scene::{LONG, Scene};
use crate::rig::{ANA, NUMBER, Rig, http};
use testkit::eventually;

const HOUR_MS: u64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_on_which_nothing_is_heard_any_more_is_given_up() {
    let rig = Rig::start().await;
    let gateway = rig
        .program()
        .env("GATEWAY_SILENCE_SECONDS", 6)
        .start()
        .await;
    let linked = rig.link(NUMBER).await;
    let latency = json!({"account": NUMBER, "latency_ms": HOUR_MS});
    rig.post("/admin/faults", latency.to_string()).await;
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "held back"}))
        .await;
    eventually(LONG, async || {
        let row = rig.row(linked.id).await;
        (row.status.as_str(), row.reason.as_deref()) == ("reconnecting", Some("connection_lost"))
    })
    .await;
    let url = format!("{}/metrics", gateway.url("OPS_PORT"));
    let metrics = http().get(url).send().await.unwrap().text().await.unwrap();
    let counted = metrics
        .lines()
        .find_map(|line| line.strip_prefix("recado_gateway_watchdog_reconnects_total "));
    assert!(counted.is_some_and(|count| count != "0"), "{metrics}");
    let lost =
        r#"recado_gateway_transitions_total{status="reconnecting",reason="connection_lost"}"#;
    assert!(metrics.contains(lost), "{metrics}");

    let over = json!({"account": NUMBER, "reset": true});
    rig.post("/admin/faults", over.to_string()).await;
    eventually(LONG, async || rig.rows().await.len() == 1).await;
    eventually(LONG, async || {
        rig.row(linked.id).await.status == "connected"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_stays_open_without_a_session_on_it_is_given_up() {
    let scene = Scene::with_silence(8).await;
    let path = format!("/admin/accounts/{NUMBER}/stream-error");
    let logins = scene.stat("logins").await;
    // The library takes the session for lost, and waits for the end of a socket that is answered on.
    let error = json!({"code": "503", "stay": true});
    scene.rig.post(&path, error.to_string()).await;
    let again = async || scene.stat("logins").await > logins;
    scene.until("logged in again", again).await;
    scene.is_back().await;
    scene.end().await;
}
