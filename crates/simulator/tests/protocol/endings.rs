use serde_json::json;

use crate::harness::{Control, Phone, eventually, simulator};

const CONTACT: &str = "5511888888888";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_logs_out_is_no_device_any_more() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    phone.client.logout().await;
    eventually("the account to be gone", || async {
        (control.get("/admin/accounts").await == json!([])).then_some(())
    })
    .await;
    let request = json!({"to": number, "from": CONTACT, "text": "anyone?"});
    let (status, answer) = control
        .try_post("/admin/messages", request.to_string())
        .await;
    assert_eq!(status, 404, "{answer}");
    let mut again = phone.restart(&control.address).await;
    again.logged_out().await;
    again.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_phone_removes_is_logged_out() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    control
        .post(&format!("/admin/accounts/{number}/logout"), "")
        .await;
    phone.logged_out().await;
    let mut again = phone.restart(&control.address).await;
    again.logged_out().await;
    again.stop().await;
    let (status, _) = control
        .try_post(&format!("/admin/accounts/{number}/logout"), "")
        .await;
    assert_eq!(status, 404);
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_login_of_a_device_replaces_the_first() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let mut twin = phone.twin(&control.address).await;
    phone.replaced().await;
    twin.connected(1).await;
    control
        .post(&format!("/admin/accounts/{number}/replace"), "")
        .await;
    twin.replaced().await;
    twin.stop().await;
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_disconnected_comes_back_by_itself() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    control.live(&number, 1).await;
    let before = phone.times_connected();
    let answer = control
        .post(&format!("/admin/accounts/{number}/disconnect"), "")
        .await;
    assert_eq!(answer["connections_ended"], 1);
    phone.connected(before + 1).await;
    control
        .send(json!({"to": number, "from": CONTACT, "text": "back"}))
        .await;
    phone.receives(1).await;
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_account_is_hung_up_on_and_cannot_log_in() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    control
        .post(&format!("/admin/accounts/{number}/ban"), "")
        .await;
    phone.logged_out().await;
    let mut again = phone.restart(&control.address).await;
    again.logged_out().await;
    again.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_connections_are_tried_again_until_they_are_accepted() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    control.live(&number, 1).await;
    let before = phone.times_connected();
    control
        .post(
            "/admin/faults",
            json!({"refuse_connections": true}).to_string(),
        )
        .await;
    control
        .post(&format!("/admin/accounts/{number}/disconnect"), "")
        .await;
    eventually("a refusal", || async {
        let stats = control.get("/admin/stats").await;
        (stats["connections_refused"].as_u64() > Some(0)).then_some(())
    })
    .await;
    assert_eq!(phone.times_connected(), before);
    control
        .post(
            "/admin/faults",
            json!({"refuse_connections": false}).to_string(),
        )
        .await;
    phone.connected(before + 1).await;
    phone.stop().await;
    simulator.stop().await;
}
