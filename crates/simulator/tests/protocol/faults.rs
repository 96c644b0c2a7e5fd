//! What a client lives through when the server misbehaves.

use serde_json::{Value, json};
use whatsapp_rust::Jid;
use whatsapp_rust::types::events::{ConnectFailureReason, Event};

use crate::harness::{Control, Phone, eventually, simulator, text};

const CONTACT: &str = "5511888888888";

async fn wish(control: &Control, faults: Value) {
    control.post("/admin/faults", faults.to_string()).await;
}

async fn hang_up(control: &Control, number: &str) {
    let path = format!("/admin/accounts/{number}/disconnect");
    control.post(&path, "").await;
}

/// Waits until one more connection has been spoiled.
async fn spoiled(control: &Control, before: u64) -> u64 {
    eventually("a spoiled connection", || async {
        let stats = control.get("/admin/stats").await;
        let spoiled = stats["connections_spoiled"].as_u64().unwrap();
        (spoiled > before).then_some(spoiled)
    })
    .await
}

/// A contact's message arrives, whatever happened before.
async fn still_listens(control: &Control, phone: &Phone, number: &str) {
    let before = phone.received().len();
    control
        .send(json!({"to": number, "from": CONTACT, "text": "still there?"}))
        .await;
    phone.receives(before + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_comes_back_after_every_step_at_which_it_was_cut_off() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let mut count = 0;
    for step in [
        "upgrade",
        "hello",
        "server_hello",
        "finish",
        "success",
        "passive",
    ] {
        control.live(&number, 1).await;
        wish(&control, json!({"close_at": step})).await;
        hang_up(&control, &number).await;
        phone.client.reconnect_immediately().await;
        count = spoiled(&control, count).await;
        wish(&control, json!({"reset": true})).await;
        phone.client.reconnect_immediately().await;
        still_listens(&control, &phone, &number).await;
    }
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_keeps_a_client_waiting() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let mut count = 0;
    for step in ["hello", "finish", "success"] {
        control.live(&number, 1).await;
        wish(&control, json!({"stall_at": step})).await;
        phone.client.reconnect_immediately().await;
        count = spoiled(&control, count).await;
        control.live(&number, 0).await;
        wish(&control, json!({"reset": true})).await;
        let mut again = phone.restart(&control.address).await;
        still_listens(&control, &again, &number).await;
        std::mem::swap(&mut phone, &mut again);
    }
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_understood_by_their_reason_and_hit_the_account_that_was_meant() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut other = Phone::start(&control.address).await;
    let others = other.link(&control, None).await;
    for reason in [401, 402, 403, 405, 406, 409, 503] {
        let mut phone = Phone::start(&control.address).await;
        let number = phone.link(&control, None).await;
        let faults = json!({"account": number, "failure": reason, "ban_seconds": 77});
        wish(&control, faults).await;
        hang_up(&control, &number).await;
        phone.client.reconnect_immediately().await;
        let failure = phone.event("the failure", |event| match (reason, event) {
            (401 | 403 | 406, Event::LoggedOut(out)) => out.on_connect.then_some(()),
            (402, Event::TemporaryBan(ban)) => {
                assert_eq!(ban.expire.num_seconds(), 77);
                Some(())
            }
            (405, Event::ClientOutdated(_)) => Some(()),
            (409, Event::ConnectFailure(failure)) => {
                assert_eq!(failure.reason, ConnectFailureReason::BadUserAgent);
                Some(())
            }
            _ => None,
        });
        match reason {
            503 => {
                eventually("a rejected login", || async {
                    let stats = control.get("/admin/stats").await;
                    (stats["logins_rejected"].as_u64() >= Some(7)).then_some(())
                })
                .await;
                drop(failure);
            }
            _ => failure.await,
        }
        wish(&control, json!({"account": number, "reset": true})).await;
        if reason == 503 {
            still_listens(&control, &phone, &number).await;
        }
        phone.stop().await;
    }
    still_listens(&control, &other, &others).await;
    assert_eq!(other.times_connected(), 1);
    other.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_errors_end_a_stream_or_more() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    for (error, ends) in [
        (json!({"code": "515"}), false),
        (json!({"code": "503"}), false),
        (json!({"code": "516"}), true),
        (json!({"conflict": "device_removed"}), true),
    ] {
        let mut phone = Phone::start(&control.address).await;
        let number = phone.link(&control, None).await;
        control.live(&number, 1).await;
        let path = format!("/admin/accounts/{number}/stream-error");
        let answer = control.post(&path, error.to_string()).await;
        assert_eq!(answer["connections"], 1);
        match ends {
            true => phone.logged_out().await,
            false => {
                phone.connected(2).await;
                still_listens(&control, &phone, &number).await;
            }
        }
        phone.stop().await;
    }
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_does_not_deafen_a_client() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    for kind in [
        "malformed_stanza",
        "unknown_stanza",
        "incomplete_stanzas",
        "garbage_enc",
        "empty_message",
        "wrong_key",
        "truncated_frame",
    ] {
        control.live(&number, 1).await;
        let path = format!("/admin/accounts/{number}/inject");
        control.post(&path, json!({"kind": kind}).to_string()).await;
        if kind == "wrong_key" {
            // The client counts that frame too, and understands none that follows.
            hang_up(&control, &number).await;
        }
        still_listens(&control, &phone, &number).await;
    }
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_come_late_in_another_order_or_not_at_all() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    phone.link(&control, None).await;
    let send = async || {
        let sent = phone
            .client
            .send_message(Jid::pn(CONTACT), text("ack me"))
            .await;
        sent.unwrap().message_id
    };
    let acked = async |id: &str| {
        phone
            .event("the ack", |event| match event {
                Event::ServerAck(ack) if ack.id == id => Some(()),
                _ => None,
            })
            .await;
    };
    acked(&send().await).await;
    wish(&control, json!({"ack_delay_ms": 300})).await;
    let start = std::time::Instant::now();
    acked(&send().await).await;
    assert!(start.elapsed().as_millis() >= 300);

    wish(&control, json!({"reset": true, "reorder_acks": true})).await;
    let ids = [send().await, send().await];
    // The client handles acks side by side, so their order can't be told from its events.
    acked(&ids[0]).await;
    acked(&ids[1]).await;
    acked(&send().await).await;

    wish(&control, json!({"reset": true, "lose_acks": true})).await;
    let lost = send().await;
    phone.receipt_for(&lost).await;
    wish(&control, json!({"reset": true})).await;
    let next = send().await;
    acked(&next).await;
    let of_lost = |event: &Event| matches!(event, Event::ServerAck(ack) if ack.id == lost);
    assert!(!phone.events().iter().any(|event| of_lost(event)));
    phone.stop().await;
    simulator.stop().await;
}
