use std::sync::{Arc, Mutex};

use serde_json::json;
use whatsapp_rust::Jid;
use whatsapp_rust::types::events::Event;
use whatsapp_rust::wacore::iq::chatstate::ReceivedChatState;

use crate::harness::{Control, Phone, eventually, simulator};

const CONTACT: &str = "5511888888888";

async fn is_there(phone: &Phone, unavailable: bool) {
    phone
        .event("a presence", |event| match event {
            Event::Presence(presence) if presence.unavailable == unavailable => {
                assert_eq!(presence.from.user, CONTACT);
                Some(())
            }
            _ => None,
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_a_contact_hears_when_it_comes_and_goes() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let show = |state: &str| json!({"from": CONTACT, "state": state}).to_string();
    let answer = control.post("/admin/presence", show("available")).await;
    assert_eq!(answer["devices"], 0);
    phone
        .client
        .presence()
        .subscribe(Jid::pn(CONTACT))
        .await
        .unwrap();
    // The first answer says how it stands.
    is_there(&phone, false).await;
    let answer = control.post("/admin/presence", show("unavailable")).await;
    assert_eq!(answer["devices"], 1);
    is_there(&phone, true).await;
    let listed = control.get("/admin/presence").await;
    assert_eq!(listed["subscriptions"][0]["watches"], json!([CONTACT]));

    let contact = Jid::pn(CONTACT);
    phone.client.presence().unsubscribe(&contact).await.unwrap();
    eventually("the end of it", || async {
        let answer = control.post("/admin/presence", show("available")).await;
        (answer["devices"] == 0).then_some(())
    })
    .await;
    let direct = json!({"from": CONTACT, "state": "available", "to": number}).to_string();
    let answer = control.post("/admin/presence", direct).await;
    assert_eq!(answer["devices"], 1);
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_there_while_its_client_says_so_and_stays() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut watcher = Phone::start(&control.address).await;
    watcher.link(&control, None).await;
    let mut watched = Phone::named(&control.address, "ana").await;
    let number = watched.link(&control, None).await;
    let watch = watcher.client.presence();
    watch.subscribe(Jid::pn(number.as_str())).await.unwrap();
    let here = watched.client.presence();
    here.set_available().await.unwrap();
    let seen = async |unavailable: bool| {
        watcher
            .event("its presence", |event| match event {
                Event::Presence(presence) => {
                    let about = presence.from.user == number.as_str();
                    (about && presence.unavailable == unavailable).then_some(())
                }
                _ => None,
            })
            .await;
    };
    seen(false).await;
    watched.stop().await;
    seen(true).await;
    watcher.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_is_seen_on_both_sides() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let seen: Arc<Mutex<Vec<(String, ReceivedChatState)>>> = Arc::default();
    let sink = seen.clone();
    phone
        .client
        .register_chatstate_handler(Arc::new(move |event| {
            let who = event.participant.unwrap_or(event.chat);
            sink.lock()
                .unwrap()
                .push((who.user.to_string(), event.state));
        }))
        .await;
    let new = json!({"subject": "team", "members": [CONTACT, number]}).to_string();
    let group = control.post("/admin/groups", new).await["group"].clone();
    for (state, group) in [
        ("composing", None),
        ("recording", None),
        ("paused", Some(&group)),
    ] {
        let request = json!({"from": CONTACT, "to": number, "state": state, "group": group});
        control.post("/admin/presence", request.to_string()).await;
    }
    eventually("the typing", || async {
        (seen.lock().unwrap().len() == 3).then_some(())
    })
    .await;
    let mut states: Vec<ReceivedChatState> = Vec::new();
    for (who, state) in seen.lock().unwrap().iter() {
        assert_eq!(who, CONTACT);
        states.push(*state);
    }
    use ReceivedChatState::{Idle, RecordingAudio, Typing};
    assert!(
        [Typing, RecordingAudio, Idle]
            .iter()
            .all(|state| states.contains(state))
    );

    let contact = Jid::pn(CONTACT);
    phone
        .client
        .chatstate()
        .send_recording(&contact)
        .await
        .unwrap();
    eventually("the client's typing", || async {
        let listed = control.get("/admin/presence").await;
        let heard = listed["heard"].as_array().unwrap();
        let typed = |heard: &&serde_json::Value| heard["state"] == "recording";
        heard
            .iter()
            .find(typed)
            .map(|heard| assert_eq!(heard["from"], number.as_str()))
    })
    .await;
    for (request, why) in [
        (json!({"from": CONTACT, "state": "composing"}), "to"),
        (json!({"from": CONTACT, "state": "away"}), "away"),
        (
            json!({"from": CONTACT, "state": "available", "mood": 1}),
            "mood",
        ),
    ] {
        let (status, answer) = control
            .try_post("/admin/presence", request.to_string())
            .await;
        assert_eq!(status, 400, "{request}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(why), "{answer}");
    }
    phone.stop().await;
    simulator.stop().await;
}
