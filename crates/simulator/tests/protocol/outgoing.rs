use serde_json::json;
use whatsapp_rust::{Jid, wacore::proto_helpers::MessageExt as _};

use crate::harness::{Control, Phone, eventually, simulator, text};

const CONTACT: &str = "5511888888888";

async fn outbox(control: &Control, count: usize) -> Vec<serde_json::Value> {
    eventually("the outbox", || async {
        let sent = control.get("/admin/outbox").await;
        let sent = sent.as_array().unwrap().clone();
        (sent.len() >= count).then_some(sent)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_to_a_contact_is_decrypted_by_its_phone_and_receipted() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    for turn in 0..3 {
        let sent = phone
            .client
            .send_message(Jid::pn(CONTACT), text(&format!("out {turn}")))
            .await
            .unwrap();
        phone.receipt_for(&sent.message_id).await;
        let all = outbox(&control, turn + 1).await;
        let last = all.last().unwrap();
        assert_eq!(last["id"], sent.message_id.to_string());
        assert_eq!(last["from"], number.as_str());
        assert_eq!(last["to"], CONTACT);
        assert_eq!(last["text"], format!("out {turn}"));
        // The contact answers in the same chat.
        control
            .send(json!({"to": number, "from": CONTACT, "text": "in"}))
            .await;
        phone.receives(turn + 1).await;
    }
    let of_other = control.get("/admin/outbox?from=5511777777777").await;
    assert_eq!(of_other, json!([]));
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_to_a_group_is_read_by_its_members() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let members = ["5511888880001", "5511888880002"];
    let request = json!({"to": number, "from": members, "group": "team", "text": "hi", "count": 2});
    let answer = control.post("/admin/messages", request.to_string()).await;
    phone.receives(2).await;
    let group: Jid = answer["group"].as_str().unwrap().parse().unwrap();
    for turn in 0..2 {
        let message = text(&format!("to all {turn}"));
        let sent = phone
            .client
            .send_message(group.clone(), message)
            .await
            .unwrap();
        phone.receipt_for(&sent.message_id).await;
        let all = outbox(&control, turn + 1).await;
        let last = all.last().unwrap();
        assert_eq!(last["text"], format!("to all {turn}"));
        assert_eq!(
            format!("{}@g.us", last["group"].as_str().unwrap()),
            group.to_string()
        );
    }
    let stats = control.get("/admin/stats").await;
    assert_eq!(stats["outbox_undecryptable"], 0);
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_linked_accounts_write_to_each_other() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut ana = Phone::start(&control.address).await;
    let ana_number = ana.link(&control, None).await;
    let mut bia = Phone::start(&control.address).await;
    let bia_number = bia.link(&control, None).await;
    let mut bias_other = Phone::start(&control.address).await;
    bias_other.link(&control, Some(&bia_number)).await;
    control.live(&bia_number, 2).await;

    let to_bia = Jid::pn(bia_number.as_str());
    let sent = ana
        .client
        .send_message(to_bia, text("hello bia"))
        .await
        .unwrap();
    for phone in [&bia, &bias_other] {
        let received = phone.receives(1).await;
        assert_eq!(received[0].message.text_content(), Some("hello bia"));
        assert_eq!(received[0].info.source.sender.user, ana_number.as_str());
        assert_eq!(received[0].info.id, sent.message_id);
    }
    let to_ana = Jid::pn(ana_number.as_str());
    bia.client
        .send_message(to_ana, text("hello ana"))
        .await
        .unwrap();
    assert_eq!(
        ana.receives(1).await[0].message.text_content(),
        Some("hello ana")
    );
    // Bia's other device gets the copy of what she wrote.
    let copies = bias_other.receives(2).await;
    assert!(copies[1].info.source.is_from_me);
    assert_eq!(copies[1].info.source.chat.user, ana_number.as_str());
    for phone in [&mut ana, &mut bia, &mut bias_other] {
        phone.stop().await;
    }
    simulator.stop().await;
}
