use serde_json::json;
use whatsapp_rust::Jid;
use whatsapp_rust::types::events::{Event, Receipt};
use whatsapp_rust::types::presence::ReceiptType;

use crate::harness::{Control, Phone, simulator, text};

const CONTACT: &str = "5511888888888";

/// Waits for a receipt of that type about that message.
async fn receipt(phone: &Phone, id: &str, kind: ReceiptType) -> Receipt {
    phone
        .event("a receipt", |event| match event {
            Event::Receipt(receipt) => {
                let about = receipt.message_ids.iter().any(|known| known == id);
                (about && receipt.r#type == kind).then(|| receipt.clone())
            }
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_says_what_became_of_a_message() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let sent = phone
        .client
        .send_message(Jid::pn(CONTACT), text("read me"))
        .await
        .unwrap();
    let id = sent.message_id.to_string();
    receipt(&phone, &id, ReceiptType::Delivered).await;
    for (kind, expected) in [
        ("read", ReceiptType::Read),
        ("played", ReceiptType::Played),
        ("sender", ReceiptType::Sender),
        ("read_self", ReceiptType::ReadSelf),
    ] {
        let request = json!({"account": number, "from": CONTACT, "ids": [id, "3EB0OTHER"],
            "kind": kind});
        control.post("/admin/receipts", request.to_string()).await;
        let received = receipt(&phone, &id, expected.clone()).await;
        assert_eq!(received.message_ids.len(), 2);
        let own = matches!(expected, ReceiptType::Sender | ReceiptType::ReadSelf);
        let from = if own { number.as_str() } else { CONTACT };
        assert_eq!(received.source.sender.user, from);
        receipt(&phone, "3EB0OTHER", expected).await;
    }
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_say_it_one_by_one_or_together() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let members = ["5511888880001", "5511888880002"];
    let request = json!({"to": number, "from": members, "group": "team", "text": "hi"});
    let answer = control.post("/admin/messages", request.to_string()).await;
    let group = answer["group"].as_str().unwrap();
    let by_one = json!({"account": number, "from": members[0], "ids": ["3EB0A"], "kind": "read",
        "group": group});
    control.post("/admin/receipts", by_one.to_string()).await;
    let received = receipt(&phone, "3EB0A", ReceiptType::Read).await;
    assert_eq!(received.source.chat.to_string(), group);
    assert_eq!(received.source.sender.user, members[0]);

    let together = json!({"account": number, "from": members, "ids": ["3EB0B"], "kind": "read",
        "group": group, "aggregated": true});
    control.post("/admin/receipts", together.to_string()).await;
    for member in members {
        phone
            .event("the member's receipt", |event| match event {
                Event::Receipt(receipt) if receipt.message_ids[0] == "3EB0B" => {
                    (receipt.source.sender.user == member).then_some(())
                }
                _ => None,
            })
            .await;
    }
    let lid = json!({"account": number, "from": members[0], "ids": ["3EB0C"], "kind": "played",
        "group": group, "addressing": "lid"});
    control.post("/admin/receipts", lid.to_string()).await;
    let received = receipt(&phone, "3EB0C", ReceiptType::Played).await;
    assert!(received.source.sender.is_lid());
    assert_eq!(received.source.sender_alt.unwrap().user, members[0]);
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_wait_for_a_device_that_is_away_and_come_once() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    phone.stop().await;
    control.live(&number, 0).await;
    let request = json!({"account": number, "from": CONTACT, "ids": ["3EB0A"], "kind": "read"});
    control.post("/admin/receipts", request.to_string()).await;
    control
        .send(json!({"to": number, "from": CONTACT, "text": "and this"}))
        .await;
    let mut phone = phone.restart(&control.address).await;
    assert!(receipt(&phone, "3EB0A", ReceiptType::Read).await.offline);
    phone.receives(1).await;
    control.undelivered(&number, 0).await;
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_of_nobody_or_of_nothing_are_refused() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    for (request, status, why) in [
        (
            json!({"account": "5511777777777", "from": CONTACT, "ids": ["a"], "kind": "read"}),
            404,
            "not paired",
        ),
        (
            json!({"account": number, "from": CONTACT, "ids": [], "kind": "read"}),
            400,
            "ids",
        ),
        (
            json!({"account": number, "from": CONTACT, "ids": ["a"], "kind": "seen"}),
            400,
            "seen",
        ),
        (
            json!({"account": number, "from": CONTACT, "ids": ["a"], "kind": "read", "group": "x"}),
            404,
            "no group",
        ),
        (
            json!({"account": number, "from": CONTACT, "ids": ["a"], "kind": "read", "when": 1}),
            400,
            "when",
        ),
    ] {
        let (answered, answer) = control
            .try_post("/admin/receipts", request.to_string())
            .await;
        assert_eq!(answered, status, "{request}: {answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(why), "{request}: {error}");
    }
    phone.stop().await;
    simulator.stop().await;
}
