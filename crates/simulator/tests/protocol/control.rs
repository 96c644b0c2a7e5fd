//! The control API by itself.

use serde_json::json;

use crate::harness::{Control, Phone, eventually, simulator};

#[tokio::test(flavor = "multi_thread")]
async fn malformed_calls_are_refused_with_a_reason() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let from = "5511888888888";
    for (body, expected) in [
        ("{".to_owned(), 400),
        ("[]".to_owned(), 400),
        (json!({"to": number}).to_string(), 400),
        (
            json!({"to": "abc", "from": from, "text": "x"}).to_string(),
            400,
        ),
        (
            json!({"to": "5511777777777", "from": from, "text": "x"}).to_string(),
            404,
        ),
        (
            json!({"to": number, "from": "1", "text": "x"}).to_string(),
            400,
        ),
        (
            json!({"to": number, "from": [], "text": "x"}).to_string(),
            400,
        ),
        (
            json!({"to": number, "from": number, "text": "x"}).to_string(),
            400,
        ),
        (json!({"to": number, "from": from}).to_string(), 400),
        (
            json!({"to": number, "from": from, "type": "nope"}).to_string(),
            400,
        ),
        (
            json!({"to": number, "from": from, "type": "raw", "content": "?"}).to_string(),
            400,
        ),
        (
            json!({"to": number, "from": from, "text": "x", "count": 0}).to_string(),
            400,
        ),
        (
            json!({"to": number, "from": from, "text": "x", "rate": 0}).to_string(),
            400,
        ),
        (
            json!({"to": number, "from": from, "text": "x", "colour": 1}).to_string(),
            400,
        ),
    ] {
        let (status, answer) = control.try_post("/admin/messages", body.clone()).await;
        assert_eq!(status, expected, "{body}: {answer}");
        assert!(answer["error"].is_string(), "{body}: {answer}");
    }
    for path in [
        "/admin/accounts/5511777777777/disconnect",
        "/admin/messages/3EB0/resend",
    ] {
        assert_eq!(control.try_post(path, "").await.0, 404, "{path}");
    }
    let (status, _) = control
        .try_post("/admin/faults", r#"{"drop_ack": true}"#)
        .await;
    assert_eq!(status, 400);
    assert_eq!(control.get("/admin/messages").await, json!([]));
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_set_one_by_one_and_shown() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    control.post("/admin/faults", r#"{"latency_ms": 5}"#).await;
    let faults = control
        .post("/admin/faults", r#"{"drop_acks": true}"#)
        .await;
    assert_eq!(faults["drop_acks"], true);
    assert_eq!(faults["latency_ms"], 5);
    assert_eq!(control.get("/admin/faults").await, faults);
    let one = json!({"account": "+55 11 99999-9999", "close_at": "success", "failure": 503});
    let faults = control.post("/admin/faults", one.to_string()).await;
    let expected = json!({"5511999999999": {"close_at": "success", "failure": 503}});
    assert_eq!(faults["accounts"], expected);
    assert_eq!(faults["close_at"], "off");
    let faults = control.post("/admin/faults", r#"{"reset": true}"#).await;
    assert_eq!(
        (&faults["accounts"], &faults["latency_ms"]),
        (&json!({}), &json!(0))
    );
    let (status, answer) = control
        .try_post("/admin/faults", r#"{"close_at": "never"}"#)
        .await;
    assert_eq!(status, 400, "{answer}");
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_holds_every_stanza_back_and_keeps_their_order() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    control
        .post("/admin/faults", r#"{"latency_ms": 200}"#)
        .await;
    let start = std::time::Instant::now();
    let ids = control
        .send(json!({"to": number, "from": "5511888888888", "text": "x", "count": 20}))
        .await;
    let received = phone.receives(20).await;
    assert!(start.elapsed().as_millis() >= 200);
    let got: Vec<&str> = received
        .iter()
        .map(|message| message.info.id.as_str())
        .collect();
    assert_eq!(got, ids);
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resend_can_be_ordered_and_the_ledger_is_read_in_parts() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    phone.stop().await;
    control.live(&number, 0).await;
    let ids = control
        .send(json!({"to": number, "from": "5511888888888", "text": "x", "count": 5}))
        .await;
    control
        .post(&format!("/admin/messages/{}/resend", ids[0]), "")
        .await;
    let mut phone = phone.restart(&control.address).await;
    let received = phone.receives(5).await;
    assert_eq!(received[4].info.id, ids[0], "the resent one comes last");
    let path = format!("/admin/messages?to={number}&offset=1&limit=2");
    let part = control.get(&path).await;
    let part: Vec<&str> = part
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert_eq!(part, ids[1..3]);
    control.acked(&ids[0]).await;
    eventually("a refusal", || async {
        let path = format!("/admin/messages/{}/resend", ids[0]);
        let (status, _) = control.try_post(&path, "").await;
        (status == 409).then_some(())
    })
    .await;
    phone.stop().await;
    simulator.stop().await;
}
