use serde_json::json;
use whatsapp_rust::types::events::Event;
use whatsapp_rust::wacore::stanza::call::build_reject;
use whatsapp_rust::wacore::types::call::{CallAction, IncomingCall};

use crate::harness::{Control, Phone, eventually, simulator};

const CONTACT: &str = "5511888888888";

async fn incoming(phone: &Phone, what: impl Fn(&CallAction) -> bool) -> IncomingCall {
    phone
        .event("a call", |event| match event {
            Event::IncomingCall(call) if what(&call.action) => Some(call.clone()),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_calls_and_hangs_up() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let request = json!({"to": number, "from": CONTACT, "video": true});
    let answer = control.post("/admin/calls", request.to_string()).await;
    let id = answer["call_id"].as_str().unwrap();
    let offer = incoming(&phone, |action| matches!(action, CallAction::Offer { .. })).await;
    assert_eq!(offer.from.user, CONTACT);
    assert_eq!(offer.action.call_id(), id);
    let CallAction::Offer {
        is_video,
        audio,
        caller_pn,
        ..
    } = &offer.action
    else {
        unreachable!()
    };
    assert!(*is_video);
    assert_eq!(audio.len(), 2);
    assert_eq!(caller_pn.as_ref().unwrap().user, CONTACT);

    let ending = json!({"reason": "timeout", "duration": 7}).to_string();
    control
        .post(&format!("/admin/calls/{id}/terminate"), ending)
        .await;
    let end = incoming(&phone, |action| {
        matches!(action, CallAction::Terminate { .. })
    })
    .await;
    let CallAction::Terminate {
        reason, duration, ..
    } = &end.action
    else {
        unreachable!()
    };
    assert_eq!((reason.as_deref(), *duration), (Some("timeout"), Some(7)));
    let calls = control.get(&format!("/admin/calls?to={number}")).await;
    assert!(calls[0]["ended_at"].is_string(), "{calls}");
    control.undelivered(&number, 0).await;
    // The key of the call has used a step of the contact's ratchet.
    control
        .send(json!({"to": number, "from": CONTACT, "text": "why not?"}))
        .await;
    phone.receives(1).await;
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_a_group_names_it_and_one_while_away_was_missed() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let message = json!({"to": number, "from": CONTACT, "group": "team", "text": "hi"});
    let answer = control.post("/admin/messages", message.to_string()).await;
    let group = answer["group"].as_str().unwrap();
    let request = json!({"to": number, "from": CONTACT, "group": group}).to_string();
    control.post("/admin/calls", request.clone()).await;
    let offer = incoming(&phone, |action| matches!(action, CallAction::Offer { .. })).await;
    let CallAction::Offer { group_jid, .. } = &offer.action else {
        unreachable!()
    };
    assert_eq!(group_jid.as_ref().unwrap().to_string(), group);
    control.undelivered(&number, 0).await;

    let by_lid = json!({"to": number, "from": "5511888880002", "addressing": "lid"}).to_string();
    control.post("/admin/calls", by_lid).await;
    let offer = incoming(&phone, |action| action.call_creator().is_lid()).await;
    assert!(offer.from.is_lid());
    let CallAction::Offer { caller_pn, .. } = &offer.action else {
        unreachable!()
    };
    assert_eq!(caller_pn.as_ref().unwrap().user, "5511888880002");
    // One that is not acknowledged before the phone is away comes again, as missed too.
    control.undelivered(&number, 0).await;

    phone.stop().await;
    control.live(&number, 0).await;
    let answer = control.post("/admin/calls", request).await;
    let mut phone = phone.restart(&control.address).await;
    let missed = phone.event("a missed call", |event| match event {
        Event::MissedCall(missed) => Some(missed.call_id.clone()),
        _ => None,
    });
    assert_eq!(missed.await, answer["call_id"].as_str().unwrap());
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_to_a_call_is_noted() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let request = json!({"to": number, "from": CONTACT}).to_string();
    control.post("/admin/calls", request).await;
    let offer = incoming(&phone, |action| matches!(action, CallAction::Offer { .. })).await;
    let creator = offer.action.call_creator();
    let rejection = build_reject(offer.action.call_id(), &offer.from, creator, "3EB0REJECT");
    phone.client.send_node(rejection).await.unwrap();
    eventually("the rejection", || async {
        let calls = control.get("/admin/calls").await;
        (calls[0]["answers"] == json!(["reject"])).then_some(())
    })
    .await;
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_or_about_nobody_are_refused() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    for (path, body, status) in [
        (
            "/admin/calls",
            json!({"to": "5511777777777", "from": CONTACT}),
            404,
        ),
        (
            "/admin/calls",
            json!({"to": "5511777777777", "from": CONTACT, "ring": 1}),
            400,
        ),
        ("/admin/calls/ABC/terminate", json!({}), 404),
    ] {
        let (answered, answer) = control.try_post(path, body.to_string()).await;
        assert_eq!(answered, status, "{path} {body}: {answer}");
    }
    simulator.stop().await;
}
