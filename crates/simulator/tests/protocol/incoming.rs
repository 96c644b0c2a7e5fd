use chrono::DateTime;
use serde_json::json;

use crate::harness::{Control, Phone, eventually, simulator};

const CONTACT: &str = "5511888888888";

#[tokio::test(flavor = "multi_thread")]
async fn a_contacts_text_arrives_and_is_acknowledged() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let ids = control
        .send(json!({"to": number, "from": CONTACT, "text": "Olá!", "name": "Ana"}))
        .await;
    let received = phone.receives(1).await;
    assert_eq!(received[0].text(), "Olá!");
    assert_eq!(received[0].info.id, ids[0]);
    assert_eq!(received[0].info.source.sender.user, CONTACT);
    assert_eq!(received[0].info.push_name, "Ana");
    let message = control.acked(&ids[0]).await;
    assert_eq!(message["deliveries"], 1);
    assert_eq!(message["from"], CONTACT);
    assert_eq!(message["to"], number.as_str());
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_take_turns_and_every_message_keeps_its_place() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let contacts = ["5511888880001", "5511888880002", "5511888880003"];
    let ids = control
        .send(json!({"to": number, "from": contacts, "text": "x", "count": 300}))
        .await;
    let received = phone.receives(300).await;
    for contact in contacts {
        let of_contact = |id: &str| {
            let message = received.iter().find(|m| m.info.id == id).unwrap();
            message.info.source.sender.user == contact
        };
        let sent: Vec<&str> = ids
            .iter()
            .map(String::as_str)
            .filter(|id| of_contact(id))
            .collect();
        let got = received
            .iter()
            .filter(|m| m.info.source.sender.user == contact);
        let got: Vec<&str> = got.map(|m| m.info.id.as_str()).collect();
        assert_eq!(sent, got);
        assert_eq!(sent.len(), 100);
    }
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_spreads_messages_over_time_and_answers_at_once() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let ids = control
        .send(json!({"to": number, "from": CONTACT, "text": "x", "count": 11, "rate": 50}))
        .await;
    assert_eq!(ids.len(), 11);
    phone.receives(11).await;
    let all = control.get(&format!("/admin/messages?to={number}")).await;
    let time = |at: usize| {
        let at = all[at]["sent_at"].as_str().unwrap();
        DateTime::parse_from_rfc3339(at).unwrap()
    };
    let took = (time(10) - time(0)).num_milliseconds();
    // The schedule is kept; a single message may leave a little late.
    assert!(
        (150..1000).contains(&took),
        "{took} ms for 10 intervals of 20 ms"
    );
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_groups_texts_arrive_with_group_and_member() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let members = ["5511888880001", "5511888880002"];
    let request = json!({"to": number, "from": members, "group": "team", "text": "oi", "count": 4});
    let answer = control.post("/admin/messages", request.to_string()).await;
    let group = answer["group"].as_str().unwrap();
    let received = phone.receives(4).await;
    for message in &received {
        assert_eq!(message.text(), "oi");
        assert_eq!(message.info.source.chat.to_string(), group);
        assert!(members.contains(&message.info.source.sender.user.as_str()));
    }
    for id in answer["ids"].as_array().unwrap() {
        control.acked(id.as_str().unwrap()).await;
    }
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_device_of_an_account_gets_every_message_over_its_own_ratchet() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut first = Phone::start(&control.address).await;
    let number = first.link(&control, None).await;
    let mut second = Phone::start(&control.address).await;
    second.link(&control, Some(&number)).await;
    control.live(&number, 2).await;
    let ids = control
        .send(json!({"to": number, "from": CONTACT, "text": "both", "count": 3}))
        .await;
    for phone in [&first, &second] {
        let received = phone.receives(3).await;
        assert!(received.iter().all(|message| message.text() == "both"));
    }
    let message = control.acked(&ids[0]).await;
    assert_eq!(message["deliveries"], 2);
    assert_eq!(message["devices"].as_array().unwrap().len(), 2);

    second.stop().await;
    control.live(&number, 1).await;
    let ids = control
        .send(json!({"to": number, "from": CONTACT, "text": "one"}))
        .await;
    first.receives(4).await;
    let message = control.message(&ids[0]).await;
    assert!(
        message["acked_at"].is_null(),
        "one device is away: {message}"
    );
    first.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_while_away_waits_and_comes_in_order() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    phone.stop().await;
    control.live(&number, 0).await;
    let ids = control
        .send(json!({"to": number, "from": CONTACT, "text": "later", "count": 450}))
        .await;
    assert_eq!(control.message(&ids[0]).await["deliveries"], 0);
    let mut phone = phone.restart(&control.address).await;
    let received = phone.receives(450).await;
    let got: Vec<&str> = received
        .iter()
        .map(|message| message.info.id.as_str())
        .collect();
    let first_wrong = got.iter().zip(&ids).position(|(got, sent)| got != sent);
    assert_eq!((got.len(), first_wrong), (450, None));
    for id in [&ids[0], &ids[449]] {
        assert_eq!(control.acked(id).await["deliveries"], 1);
    }
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_ack_was_dropped_comes_again_with_the_same_time() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    control
        .post("/admin/faults", json!({"drop_acks": true}).to_string())
        .await;
    let ids = control
        .send(json!({"to": number, "from": CONTACT, "text": "again"}))
        .await;
    let first = phone.receives(1).await;
    eventually("a dropped receipt", || async {
        let stats = control.get("/admin/stats").await;
        (stats["receipts_dropped"].as_u64() > Some(0)).then_some(())
    })
    .await;
    assert!(control.message(&ids[0]).await["acked_at"].is_null());
    control
        .post("/admin/faults", json!({"drop_acks": false}).to_string())
        .await;
    phone.client.reconnect_immediately().await;
    let message = control.acked(&ids[0]).await;
    assert_eq!(message["deliveries"], 2);
    // The client knows the ciphertext already: it acknowledges without handing it out again.
    assert_eq!(phone.received().len(), 1);
    assert!(first[0].info.timestamp.timestamp() > 0);
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_message_is_sent_again_when_the_client_asks() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    // In an established chat, in a new one, and in a group.
    control
        .send(json!({"to": number, "from": CONTACT, "text": "before"}))
        .await;
    phone.receives(1).await;
    let requests = [
        json!({"to": number, "from": CONTACT, "text": "a", "corrupt": true}),
        json!({"to": number, "from": "5511888880002", "text": "b", "corrupt": true}),
        json!({"to": number, "from": "5511888880003", "group": "g", "text": "c", "corrupt": true}),
    ];
    for (at, request) in requests.into_iter().enumerate() {
        let text = request["text"].as_str().unwrap().to_owned();
        let ids = control.send(request).await;
        phone.cannot_read(&ids[0]).await;
        let received = phone.receives(at + 2).await;
        let last = received.last().unwrap();
        assert_eq!(
            (last.text(), last.info.id.as_str()),
            (text.as_str(), ids[0].as_str())
        );
        control.acked(&ids[0]).await;
    }
    // The chats go on.
    control
        .send(json!({"to": number, "from": CONTACT, "text": "after"}))
        .await;
    control
        .send(json!({"to": number, "from": "5511888880003", "group": "g", "text": "after"}))
        .await;
    phone.receives(6).await;
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_contents_arrive_as_they_were_sent() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let long = "ü".repeat(30_000);
    for text in ["a\0b", long.as_str(), ""] {
        control
            .send(json!({"to": number, "from": CONTACT, "text": text}))
            .await;
    }
    control
        .send(json!({"to": number, "from": CONTACT, "type": "unknown"}))
        .await;
    // Message { conversation: "raw" }
    control
        .send(json!({"to": number, "from": CONTACT, "type": "raw", "content": "CgNyYXc="}))
        .await;
    eventually("all receipts", || async {
        let all = control.get(&format!("/admin/messages?to={number}")).await;
        let all = all.as_array().unwrap();
        (all.len() == 5 && all.iter().all(|m| !m["acked_at"].is_null())).then_some(())
    })
    .await;
    let received = phone.received();
    assert_eq!(received[0].text(), "a\0b");
    assert_eq!(received[1].text(), long);
    assert_eq!(received.last().unwrap().text(), "raw");
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_accounts_own_phone_writes_and_the_device_gets_a_copy() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let ids = control
        .send(json!({"to": number, "from": CONTACT, "from_me": true, "text": "mine"}))
        .await;
    let received = phone.receives(1).await;
    assert!(received[0].info.source.is_from_me);
    assert_eq!(received[0].info.source.chat.user, CONTACT);
    let message = control.acked(&ids[0]).await;
    assert_eq!(message["from"], number.as_str());
    assert_eq!(message["to"], CONTACT);
    let group = json!({"to": number, "from": CONTACT, "from_me": true, "group": "g", "text": "us"});
    control.send(group).await;
    let received = phone.receives(2).await;
    assert!(received[1].info.source.is_from_me && received[1].info.source.is_group);
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_can_be_known_by_lid_with_or_without_its_number() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let hidden = "5511888880009";
    control
        .send(json!({"to": number, "from": CONTACT, "addressing": "lid", "text": "a"}))
        .await;
    control
        .send(json!({"to": number, "from": hidden, "addressing": "lid_only", "text": "b"}))
        .await;
    let received = phone.receives(2).await;
    for message in &received {
        assert!(message.info.source.sender.is_lid());
        let alternative = message.info.source.sender_alt.as_ref();
        let alternative = alternative.map(|jid| jid.user.as_str());
        let expected = (message.text() == "a").then_some(CONTACT);
        assert_eq!(alternative, expected);
    }
    phone.stop().await;
    simulator.stop().await;
}
