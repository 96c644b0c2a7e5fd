//! How sessions begin, go on and end.

use domain::client::Client;
use domain::connection::{Connection, Desired, Pairing};
use serde_json::json;
use testkit::eventually;

use crate::rig::{ANA, LIMIT, NUMBER, Rig};

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_linked_by_its_code_and_every_step_is_told() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["connection.*"]).await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;

    assert_eq!(linked.reason, None);
    assert_eq!(linked.qr_code, None, "a used code is not shown any more");
    assert!(linked.jid.unwrap().starts_with(NUMBER));
    assert!(linked.lid.unwrap().ends_with("@lid"));
    let events = rig.events(&webhook).await;
    let types: Vec<_> = events
        .iter()
        .map(|event| event.event_type.as_str())
        .collect();
    assert_eq!(types, ["connection.qr", "connection.open"]);
    gateway.stop().await;
    assert_eq!(
        rig.row(linked.id).await.status,
        "connected",
        "it is handed over as it is"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_gateway_goes_on_with_the_sessions_of_the_last() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    gateway.stop().await;
    let ids = rig
        .send(json!({"to": NUMBER, "from": ANA, "text": "while you were out", "count": 20}))
        .await;

    let gateway = rig.gateway();
    let rows = rig.wait_for_rows(20).await;
    let received: Vec<_> = rows.iter().map(|row| row.message_id.clone()).collect();
    assert_eq!(received.len(), ids.len());
    assert!(ids.iter().all(|id| received.contains(id)));
    rig.wait_for_acks(NUMBER).await;
    let row = rig.row(linked.id).await;
    assert_eq!(
        (row.status.as_str(), row.transition),
        ("connected", linked.transition)
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_not_wanted_ends_and_is_begun_again_with_its_keys() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    rig.desire(&linked, Desired::Disconnected).await;
    rig.wait_for(linked.id, "disconnected").await;
    eventually(LIMIT, async || rig.accounts().await[0]["online"] == false).await;
    assert_eq!(rig.count("protocol_devices").await, 1);

    let phone = NUMBER.parse().unwrap();
    Connection::connect(
        &mut rig.conn().await,
        rig.client_id,
        linked.user_id,
        &phone,
        Pairing::Qr,
    )
    .await
    .unwrap();
    let again = rig.wait_for(linked.id, "connected").await;
    assert_eq!(again.jid, linked.jid, "without a new code");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_out_unlinks_the_device_and_deletes_its_keys() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    assert!(rig.count("protocol_prekeys").await > 0);

    rig.desire(&linked, Desired::LoggedOut).await;
    let row = rig.wait_for(linked.id, "logged_out").await;
    assert_eq!((row.jid, row.reason), (None, None));
    assert_eq!(rig.count("protocol_devices").await, 0);
    assert_eq!(rig.count("protocol_prekeys").await, 0);
    assert!(
        rig.accounts().await.is_empty(),
        "the phone lists no device any more"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_connection_is_unlinked_and_goes() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    Connection::delete(&mut rig.conn().await, rig.client_id, linked.id)
        .await
        .unwrap();
    rig.wait_until_gone(linked.id).await;
    assert!(rig.accounts().await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_connection_is_unlinked_even_when_its_session_was_not_running() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    rig.desire(&linked, Desired::Disconnected).await;
    rig.wait_for(linked.id, "disconnected").await;

    Connection::delete(&mut rig.conn().await, rig.client_id, linked.id)
        .await
        .unwrap();
    rig.wait_until_gone(linked.id).await;
    assert!(rig.accounts().await.is_empty());
    assert_eq!(rig.count("protocol_devices").await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_of_another_number_is_logged_out_and_nothing_of_it_is_kept() {
    const OTHER: &str = "5521977776666";
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["*"]).await;
    let gateway = rig.gateway();
    let connection = rig.connect_for(rig.client_id, NUMBER).await;
    let code = rig.qr(connection.id).await;
    rig.scan(&code, OTHER).await;
    // It is in the account's queue before the device is gone, or finds no device.
    let text = json!({"to": OTHER, "from": ANA, "text": "not for you"}).to_string();
    let _ = rig.try_post("/admin/messages", text).await;

    let row = rig.wait_for(connection.id, "logged_out").await;
    assert_eq!(row.reason.as_deref(), Some("number_mismatch"));
    assert_eq!(row.jid, None);
    assert_eq!(rig.count("protocol_devices").await, 0);
    assert!(rig.rows().await.is_empty());
    assert!(rig.accounts().await.is_empty());
    let events = rig.events(&webhook).await;
    assert!(
        events
            .iter()
            .all(|event| event.event_type.starts_with("connection."))
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_whatsapp_treats_as_one_are_one() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let connection = rig.connect_for(rig.client_id, "5511988887777").await;
    let code = rig.qr(connection.id).await;
    rig.scan(&code, "551188887777").await;
    rig.wait_for(connection.id, "connected").await;
    rig.send(json!({"to": "551188887777", "from": ANA, "text": "oi"}))
        .await;
    let rows = rig.wait_for_rows(1).await;
    assert_eq!(rows[0].to, "5511988887777", "as it was registered");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_that_link_one_number_each_get_their_own() {
    let rig = Rig::start().await;
    let second = Client::insert(&mut rig.conn().await, "globex")
        .await
        .unwrap();
    let webhooks = [
        rig.webhook(&["message"]).await,
        rig.webhook_for(second.id, NUMBER, &["message"]).await,
    ];
    let gateway = rig.gateway();
    let first = rig.link(NUMBER).await;
    let other = rig.link_for(second.id, NUMBER).await;
    let ids = rig
        .send(json!({"to": NUMBER, "from": ANA, "text": "to both"}))
        .await;

    let rows = rig.wait_for_rows(2).await;
    let mut owners: Vec<_> = rows
        .iter()
        .map(|row| (row.client_id, row.connection_id))
        .collect();
    owners.sort();
    let mut expected = vec![(rig.client_id, first.id), (second.id, other.id)];
    expected.sort();
    assert_eq!(owners, expected);
    assert!(rows.iter().all(|row| row.message_id == ids[0]));
    for webhook in &webhooks {
        assert_eq!(rig.events(webhook).await.len(), 1);
    }
    rig.wait_for_acks(NUMBER).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_session_from_outside_is_told_with_its_reason() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    for (action, number, status, reason) in [
        ("replace", "5511988880001", "disconnected", "replaced"),
        ("logout", "5511988880002", "logged_out", "unlinked"),
        ("ban", "5511988880003", "logged_out", "account_locked"),
    ] {
        let linked = rig.link(number).await;
        rig.post(&format!("/admin/accounts/{number}/{action}"), String::new())
            .await;
        let row = rig.wait_for(linked.id, status).await;
        assert_eq!(row.reason.as_deref(), Some(reason), "{action}");
        assert_eq!(row.desired, status, "it is not begun again by itself");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_comes_back_by_itself() {
    let rig = Rig::start().await;
    let webhook = rig.webhook(&["connection.*"]).await;
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    rig.post(
        &format!("/admin/accounts/{NUMBER}/disconnect"),
        String::new(),
    )
    .await;
    let told = |events: &[crate::rig::EventRow]| -> Vec<String> {
        events
            .iter()
            .map(|event| event.event_type.clone())
            .collect()
    };
    eventually(LIMIT, async || {
        let types = told(&rig.events(&webhook).await);
        match types.as_slice() {
            [_, _, closed, open] if closed == "connection.closed" && open == "connection.open" => {
                Ok(())
            }
            types => Err(format!("{types:?}")),
        }
    })
    .await;
    assert_eq!(rig.row(linked.id).await.status, "connected");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_asked_for_anew_before_it_was_linked_takes_the_new_number() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let connection = rig.connect_for(rig.client_id, "5511988880009").await;
    let first = rig.qr(connection.id).await;
    let phone = NUMBER.parse().unwrap();
    Connection::connect(
        &mut rig.conn().await,
        rig.client_id,
        connection.user_id,
        &phone,
        Pairing::Qr,
    )
    .await
    .unwrap();
    let second = eventually(LIMIT, async || {
        rig.row(connection.id)
            .await
            .qr_code
            .filter(|code| *code != first)
    })
    .await;
    rig.scan(&second, NUMBER).await;
    rig.wait_for(connection.id, "connected").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_whose_keys_cannot_be_opened_does_not_stop_the_others() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let broken = rig.link("5511988880001").await;
    gateway.stop().await;
    diesel_async::RunQueryDsl::execute(
        diesel::sql_query("UPDATE protocol_devices SET data = 'x'"),
        &mut rig.conn().await,
    )
    .await
    .unwrap();
    let gateway = rig.gateway();
    let linked = rig.link(NUMBER).await;
    let row = rig.wait_for(broken.id, "reconnecting").await;
    assert_eq!(row.reason.as_deref(), Some("session_failed"));
    assert_eq!(rig.row(linked.id).await.status, "connected");
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "still here"}))
        .await;
    rig.wait_for_rows(1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_linked_by_a_code_that_is_typed_and_can_be_asked_for_instead_of_a_picture() {
    let rig = Rig::start().await;
    let gateway = rig.gateway();
    let webhook = rig.webhook(&["connection.*"]).await;
    let connection = rig.connect_for(rig.client_id, NUMBER).await;
    rig.qr(connection.id).await;

    Connection::connect(
        &mut rig.conn().await,
        rig.client_id,
        connection.user_id,
        &NUMBER.parse().unwrap(),
        Pairing::Code,
    )
    .await
    .unwrap();
    let code = eventually(LIMIT, async || rig.row(connection.id).await.pairing_code).await;
    assert_eq!((code.len(), &code[4..5]), (9, "-"));
    assert_eq!(rig.row(connection.id).await.qr_code, None);

    let typed = |code: &str| json!({"phone_number": NUMBER, "code": code}).to_string();
    let wrong = rig.try_post("/admin/mock-phone/enter-code", typed("ZZZZ-ZZZZ"));
    assert!(wrong.await.is_err());
    // A code does not outlive its socket.
    rig.post(
        &format!("/admin/accounts/{NUMBER}/disconnect"),
        String::new(),
    )
    .await;
    let code = eventually(LIMIT, async || {
        let shown = rig.row(connection.id).await.pairing_code;
        shown.filter(|shown| *shown != code)
    })
    .await;
    rig.post("/admin/mock-phone/enter-code", typed(&code)).await;
    let row = rig.wait_for(connection.id, "connected").await;
    assert!(row.jid.is_some() && row.pairing_code.is_none());
    let told = rig.events(&webhook).await;
    let shown = told
        .iter()
        .find(|event| event.metadata["pairing_code"] == code.as_str());
    assert_eq!(shown.unwrap().event_type, "connection.qr");
    rig.send(json!({"to": NUMBER, "from": ANA, "text": "hi"}))
        .await;
    rig.wait_for_rows(1).await;
    gateway.stop().await;
}
