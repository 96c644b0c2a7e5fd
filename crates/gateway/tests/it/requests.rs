//! Requests that come at awkward moments.

use domain::connection::{Connection, Desired, Pairing};
use serde_json::json;
use testkit::eventually;

use crate::rig::{LIMIT, NUMBER, Rig};

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_again_before_the_session_has_ended_is_told_that_it_is_connected() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    let mut conn = rig.conn().await;
    rig.desire(&linked, Desired::Disconnected).await;
    let phone = NUMBER.parse().unwrap();
    let asked = Connection::connect(
        &mut conn,
        rig.client_id,
        linked.user_id,
        &phone,
        Pairing::Qr,
    );
    assert_eq!(asked.await.unwrap().status, "reconnecting");
    rig.wait_for(linked.id, "connected").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_opened_are_deleted_when_the_connection_is() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    gateway.stop().await;
    rig.run_sql("UPDATE protocol_devices SET data = 'x'").await;
    Connection::delete(&mut rig.conn().await, rig.client_id, linked.id)
        .await
        .unwrap();

    let gateway = rig.gateway();
    rig.wait_until_gone(linked.id).await;
    assert_eq!(rig.count("protocol_devices").await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_phone_removed_meanwhile_is_logged_out_without_doubt() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    rig.desire(&linked, Desired::Disconnected).await;
    rig.wait_for(linked.id, "disconnected").await;
    eventually(LIMIT, async || rig.accounts().await[0]["online"] == false).await;
    rig.post(&format!("/admin/accounts/{NUMBER}/logout"), String::new())
        .await;

    rig.desire(&linked, Desired::LoggedOut).await;
    let row = rig.wait_for(linked.id, "logged_out").await;
    assert_eq!(row.reason, None);
    assert_eq!(rig.count("protocol_devices").await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_whatsapp_cannot_be_told_of_loses_its_keys_and_the_status_says_so() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    let faults = json!({"refuse_connections": true}).to_string();
    rig.post("/admin/faults", faults).await;
    rig.post(
        &format!("/admin/accounts/{NUMBER}/disconnect"),
        String::new(),
    )
    .await;
    rig.wait_for(linked.id, "reconnecting").await;

    rig.desire(&linked, Desired::LoggedOut).await;
    let row = eventually(LIMIT + LIMIT, async || {
        let row = rig.row(linked.id).await;
        (row.status == "logged_out").then_some(row)
    })
    .await;
    assert_eq!(row.reason.as_deref(), Some("unlink_unconfirmed"));
    assert_eq!(rig.count("protocol_devices").await, 0);
    gateway.stop().await;
}
