use serde_json::json;
use whatsapp_rust::pair_code::PairCodeOptions;
use whatsapp_rust::types::events::Event;

use crate::harness::{Control, Phone, simulator};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_linked_by_qr_code_and_comes_back_after_the_515() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, Some("+55 (11) 99999-9999")).await;
    assert_eq!(number, "5511999999999");
    control.live(&number, 1).await;
    let own = phone.client.pn().unwrap();
    assert_eq!((own.user.as_str(), own.device), ("5511999999999", 1));
    assert!(phone.client.lid().is_some());
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_one_push_name_share_an_account_and_others_get_their_own() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phones = Vec::new();
    let mut numbers = Vec::new();
    for name in [Some("ana"), Some("ana"), Some("bia"), None, None] {
        let phone = match name {
            Some(name) => Phone::named(&control.address, name).await,
            None => Phone::start(&control.address).await,
        };
        numbers.push(phone.link(&control, None).await);
        phones.push(phone);
    }
    assert_eq!(numbers[0], numbers[1]);
    assert_eq!(phones[1].client.pn().unwrap().device, 2);
    numbers.dedup();
    assert_eq!(numbers.len(), 4, "{numbers:?}");
    for phone in &mut phones {
        phone.stop().await;
    }
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_nobody_shows_or_that_was_scanned_is_refused() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let (status, answer) = control
        .try_post("/admin/mock-phone/scan-qr", "nonsense")
        .await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("QR code"));

    let mut phone = Phone::start(&control.address).await;
    let code = phone.qr().await;
    let (status, _) = control
        .try_post("/admin/mock-phone/scan-qr?phone=12", code.clone())
        .await;
    assert_eq!(status, 400);
    phone.link(&control, None).await;
    let (status, answer) = control.try_post("/admin/mock-phone/scan-qr", code).await;
    assert_eq!(status, 409, "{answer}");
    phone.stop().await;
    simulator.stop().await;
}

fn code_for(number: &str) -> PairCodeOptions {
    PairCodeOptions {
        phone_number: number.to_owned(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_linked_by_the_code_that_it_shows() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    phone.qr().await;
    let number = "5511999990001";
    let code = phone.client.pair_with_code(code_for(number)).await.unwrap();
    let shown = phone.event("the code", |event| match event {
        Event::PairingCode(shown) => Some(shown.code.clone()),
        _ => None,
    });
    assert_eq!(shown.await, code);
    let typed = format!("{}-{}", &code[..4], code[4..].to_lowercase());
    let request = json!({"phone_number": "+55 11 99999-0001", "code": typed});
    let answer = control
        .post("/admin/mock-phone/enter-code", request.to_string())
        .await;
    assert_eq!(answer, json!({"phone": number, "device": 1}));
    phone.connected(1).await;
    assert_eq!(phone.client.pn().unwrap().user, number);
    control
        .send(json!({"to": number, "from": "5511888888888", "text": "linked"}))
        .await;
    assert_eq!(phone.receives(1).await[0].text(), "linked");
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_code_or_number_is_refused_and_the_right_one_still_links() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    phone.qr().await;
    let number = "5511999990001";
    let code = phone.client.pair_with_code(code_for(number)).await.unwrap();
    let wrong = if code == "ABCDEFGH" {
        "HGFEDCBA"
    } else {
        "ABCDEFGH"
    };
    for (request, status, why) in [
        (json!({"phone_number": number, "code": wrong}), 409, "code"),
        (
            json!({"phone_number": number, "code": "ABC"}),
            400,
            "eight letters",
        ),
        (
            json!({"phone_number": "12", "code": code}),
            400,
            "phone number",
        ),
        (
            json!({"phone_number": "5511999990002", "code": code}),
            404,
            "5511999990002",
        ),
        (
            json!({"phone_number": number, "code": code, "pin": 1}),
            400,
            "pin",
        ),
    ] {
        let path = "/admin/mock-phone/enter-code";
        let (answered, answer) = control.try_post(path, request.to_string()).await;
        assert_eq!(answered, status, "{request}: {answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(why), "{request}: {error}");
    }
    let request = json!({"phone_number": number, "code": code});
    control
        .post("/admin/mock-phone/enter-code", request.to_string())
        .await;
    phone.connected(1).await;
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_accounts_are_listed_with_their_devices() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    assert_eq!(control.get("/admin/accounts").await, json!([]));
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    control.live(&number, 1).await;
    let accounts = control.get("/admin/accounts").await;
    assert_eq!(accounts[0]["phone"], number.as_str());
    assert_eq!(accounts[0]["online"], true);
    phone.stop().await;
    crate::harness::eventually("offline", || async {
        let accounts = control.get("/admin/accounts").await;
        (accounts[0]["online"] == false).then_some(())
    })
    .await;
    simulator.stop().await;
}
