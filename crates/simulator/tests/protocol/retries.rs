//! A contact couldn't read what an account sent, and asks for it.

use serde_json::{Value, json};
use whatsapp_rust::Jid;

use crate::harness::{Control, Phone, eventually, simulator, text};

const ANA: &str = "5511888880001";
const BIA: &str = "5511888880002";

async fn outbox(control: &Control, count: usize) -> Value {
    eventually("the outbox", || async {
        let sent = control.get("/admin/outbox").await;
        let sent = sent.as_array().unwrap();
        (sent.len() == count).then(|| sent[count - 1].clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_that_asks_again_gets_the_message_in_a_chat_and_in_a_group() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let new = json!({"subject": "team", "members": [ANA, BIA, number]}).to_string();
    let group = control.post("/admin/groups", new).await["group"].clone();
    let group: Jid = group.as_str().unwrap().parse().unwrap();
    let mut read = 0;
    for chat in [Jid::pn(ANA), group] {
        let sent = phone
            .client
            .send_message(chat.clone(), text("say it"))
            .await
            .unwrap();
        let id = sent.message_id.to_string();
        read += 1;
        assert_eq!(outbox(&control, read).await["again"], false);
        for count in [1, 2] {
            let request = json!({"account": number, "id": id, "from": ANA, "count": count});
            control.post("/admin/retry", request.to_string()).await;
            read += 1;
            let again = outbox(&control, read).await;
            assert_eq!(again["again"], true, "{again}");
            assert_eq!(
                (&again["id"], &again["text"]),
                (&json!(id), &json!("say it"))
            );
            assert_eq!(again["to"], ANA);
        }
        // The chat goes on.
        phone.client.send_message(chat, text("more")).await.unwrap();
        read += 1;
        assert_eq!(outbox(&control, read).await["text"], "more");
    }
    let stats = control.get("/admin/stats").await;
    assert_eq!(stats["outbox_undecryptable"], 0);
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_contact_fails_to_read_comes_by_itself_again() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    phone.link(&control, None).await;
    control.post("/admin/faults", r#"{"unread": 1}"#).await;
    let sent = phone
        .client
        .send_message(Jid::pn(ANA), text("first"))
        .await
        .unwrap();
    let read = outbox(&control, 1).await;
    assert_eq!(read["id"], sent.message_id.to_string());
    assert_eq!(
        (&read["text"], &read["again"]),
        (&json!("first"), &json!(true))
    );
    assert_eq!(control.get("/admin/faults").await["unread"], 0);
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_for_what_was_not_sent() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let request = json!({"account": number, "id": "3EB0NONE"});
    let (status, answer) = control.try_post("/admin/retry", request.to_string()).await;
    assert_eq!(status, 404, "{answer}");
    let request = json!({"account": number, "id": "3EB0NONE", "why": 1});
    let (status, answer) = control.try_post("/admin/retry", request.to_string()).await;
    assert_eq!(status, 400, "{answer}");
    phone.stop().await;
    simulator.stop().await;
}
