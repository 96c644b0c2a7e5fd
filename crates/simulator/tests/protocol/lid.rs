//! People named by LID, with their number or without it.

use serde_json::json;
use whatsapp_rust::Jid;
use whatsapp_rust::types::events::{Event, Receipt};
use whatsapp_rust::wacore::types::message::AddressingMode;

use crate::harness::{Control, Phone, eventually, simulator, text};

const ANA: &str = "5511888880001";

async fn receipt(phone: &Phone, id: &str) -> Receipt {
    phone
        .event("a receipt", |event| match event {
            Event::Receipt(receipt) => {
                let about = receipt.message_ids.iter().any(|known| known == id);
                about.then(|| receipt.clone())
            }
            _ => None,
        })
        .await
}

async fn outbox(control: &Control, count: usize) -> serde_json::Value {
    eventually("the outbox", || async {
        let sent = control.get("/admin/outbox").await;
        let sent = sent.as_array().unwrap();
        (sent.len() == count).then(|| sent[count - 1].clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_group_addressed_by_lid_everyone_is_named_so() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let new = json!({"subject": "quiet", "members": [ANA, number], "addressing": "lid"});
    let made = control.post("/admin/groups", new.to_string()).await;
    let group: Jid = made["group"].as_str().unwrap().parse().unwrap();
    phone
        .event("the group", |event| match event {
            Event::GroupUpdate(update) => {
                assert!(update.is_lid_addressing_mode);
                assert!(update.participant.as_ref().unwrap().is_lid());
                assert_eq!(update.participant_pn.as_ref().unwrap().user, ANA);
                Some(())
            }
            _ => None,
        })
        .await;
    let metadata = phone.client.groups().get_metadata(&group).await.unwrap();
    assert_eq!(metadata.addressing_mode, AddressingMode::Lid);

    let request = json!({"to": number, "from": ANA, "group": group.to_string(), "text": "psst"});
    control.send(request).await;
    let source = &phone.receives(1).await[0].info.source.clone();
    assert!(source.sender.is_lid());
    assert_eq!(source.sender_alt.as_ref().unwrap().user, ANA);

    for turn in 1..=2 {
        let sent = phone
            .client
            .send_message(group.clone(), text("yes?"))
            .await
            .unwrap();
        let last = outbox(&control, turn).await;
        assert_eq!((&last["text"], &last["to"]), (&json!("yes?"), &json!(ANA)));
        let delivered = receipt(&phone, &sent.message_id.to_string()).await;
        assert!(delivered.source.sender.is_lid());
    }
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_accounts_write_to_each_other_in_a_group_addressed_by_lid() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut one = Phone::start(&control.address).await;
    let first = one.link(&control, None).await;
    let mut other = Phone::start(&control.address).await;
    let second = other.link(&control, None).await;
    let new = json!({"subject": "quiet", "members": [first, second], "addressing": "lid"});
    let made = control.post("/admin/groups", new.to_string()).await;
    let group: Jid = made["group"].as_str().unwrap().parse().unwrap();
    for turn in 1..=2 {
        one.client
            .send_message(group.clone(), text("psst"))
            .await
            .unwrap();
        let received = other.receives(turn).await;
        let source = &received[turn - 1].info.source;
        assert!(source.sender.is_lid());
        assert_eq!(source.sender_alt.as_ref().unwrap().user, first.as_str());
    }
    one.stop().await;
    other.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migrated_account_writes_to_lids() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let code = phone.qr().await;
    let path = "/admin/mock-phone/scan-qr?lid_migrated=true";
    let number = control.post(path, code).await["phone"].clone();
    phone.connected(1).await;
    assert!(phone.client.is_lid_migrated().await);
    let sent = phone
        .client
        .send_message(Jid::pn(ANA), text("hello"))
        .await
        .unwrap();
    let last = outbox(&control, 1).await;
    assert_eq!((&last["text"], &last["to"]), (&json!("hello"), &json!(ANA)));
    let delivered = receipt(&phone, &sent.message_id.to_string()).await;
    assert!(delivered.source.chat.is_lid(), "{:?}", delivered.source);
    control
        .send(json!({"to": number, "from": ANA, "addressing": "lid", "text": "hello you"}))
        .await;
    assert_eq!(phone.receives(1).await[0].text(), "hello you");
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_known_by_lid_only_can_be_answered_and_keeps_its_number() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    control
        .send(json!({"to": number, "from": ANA, "addressing": "lid_only", "text": "guess who"}))
        .await;
    let chat = phone.receives(1).await[0].info.source.chat.clone();
    assert!(chat.is_lid());
    let sent = phone
        .client
        .send_message(chat.clone(), text("who?"))
        .await
        .unwrap();
    let last = outbox(&control, 1).await;
    assert_eq!((&last["text"], &last["to"]), (&json!("who?"), &json!(ANA)));
    let delivered = receipt(&phone, &sent.message_id.to_string()).await;
    assert_eq!(delivered.source.chat, chat);
    let known = phone.client.get_lid_pn_entry(&chat).await.unwrap();
    assert!(known.is_none(), "its number was given away");
    phone.stop().await;
    simulator.stop().await;
}
