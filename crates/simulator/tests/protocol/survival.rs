use serde_json::json;

use crate::harness::{Control, Phone, eventually, simulator, start_at};

const CONTACT: &str = "5511888888888";

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_keys_accounts_ratchets_and_what_was_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let first = simulator(Some(dir.path())).await;
    let address = first.address().to_string();
    let control = Control::of(&first);
    let mut phone = Phone::start(&address).await;
    let number = phone.link(&control, None).await;
    control
        .send(json!({"to": number, "from": CONTACT, "text": "direct"}))
        .await;
    let group = json!({"to": number, "from": CONTACT, "group": "team", "text": "group"});
    control.send(group.clone()).await;
    phone.receives(2).await;
    control
        .post("/admin/faults", json!({"drop_acks": true}).to_string())
        .await;
    let unacked = control
        .send(json!({"to": number, "from": CONTACT, "text": "unacked"}))
        .await;
    phone.receives(3).await;
    let connected = phone.times_connected();
    first.stop().await;

    let second = start_at(&address, Some(dir.path())).await.unwrap();
    // The client remembers the server's key and comes back by IK.
    phone.connected(connected + 1).await;
    let message = control.acked(&unacked[0]).await;
    assert_eq!(message["deliveries"], 2);
    control
        .send(json!({"to": number, "from": CONTACT, "text": "direct"}))
        .await;
    control.send(group).await;
    let received = phone.receives(5).await;
    assert_eq!(received.len(), 5);
    let messages = control.get(&format!("/admin/messages?to={number}")).await;
    assert_eq!(messages.as_array().unwrap().len(), 5);
    let stats = control.get("/admin/stats").await;
    assert_eq!(stats["retry_receipts"], 0);
    assert_eq!(stats["logins_rejected"], 0);
    phone.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trusts_the_certificate_speaks_over_tls_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = simulator(Some(dir.path())).await;
    let control = Control::of(&first);
    let secure = first.listen_tls("127.0.0.1:0".parse().unwrap()).await;
    let secure = secure.unwrap().to_string();
    let certificate = first.certificate().unwrap();
    let mut phone = Phone::start_tls(&secure, &certificate).await;
    let number = phone.link(&control, None).await;
    control
        .send(json!({"to": number, "from": CONTACT, "text": "sealed twice"}))
        .await;
    phone.receives(1).await;
    first.stop().await;

    let second = simulator(Some(dir.path())).await;
    assert_eq!(second.certificate().unwrap(), certificate);
    second.listen_tls(secure.parse().unwrap()).await.unwrap();
    let control = Control::of(&second);
    control
        .send(json!({"to": number, "from": CONTACT, "text": "and again"}))
        .await;
    phone.receives(2).await;
    phone.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulator_with_new_keys_is_met_by_the_fallback_handshake() {
    let first = simulator(None).await;
    let address = first.address().to_string();
    let control = Control::of(&first);
    let mut phone = Phone::start(&address).await;
    phone.link(&control, None).await;
    first.stop().await;
    let second = start_at(&address, None).await.unwrap();
    // The handshake works; only the device is unknown there.
    phone.logged_out().await;
    eventually("the rejected login", || async {
        let stats = control.get("/admin/stats").await;
        (stats["logins_rejected"] == 1).then_some(())
    })
    .await;
    phone.stop().await;
    second.stop().await;
}
