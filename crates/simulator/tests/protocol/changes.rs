use serde_json::json;
use whatsapp_rust::types::message::EditAttribute;

use crate::harness::{Control, Phone, simulator};

const CONTACT: &str = "5511888880001";
const OTHER: &str = "5511888880002";

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_a_message_names_it_and_says_so_on_its_stanza() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let write = async |from: &str, more: serde_json::Value| {
        let mut request = json!({"to": number, "from": from, "group": "team"});
        let fields = more.as_object().unwrap().clone();
        request.as_object_mut().unwrap().extend(fields);
        control.send(request).await.remove(0)
    };
    let first = write(CONTACT, json!({"text": "first"})).await;
    write(
        CONTACT,
        json!({"type": "edit", "target": first, "text": "better"}),
    )
    .await;
    write(OTHER, json!({"type": "reaction", "target": first})).await;
    write(CONTACT, json!({"type": "revoke", "target": first})).await;
    write(OTHER, json!({"type": "revoke", "target": first})).await;

    let received = phone.receives(5).await;
    let edits: Vec<&EditAttribute> = received.iter().map(|message| &message.info.edit).collect();
    let expected = [
        &EditAttribute::Empty,
        &EditAttribute::MessageEdit,
        &EditAttribute::Empty,
        &EditAttribute::SenderRevoke,
        &EditAttribute::AdminRevoke,
    ];
    assert_eq!(edits, expected);
    let own = &received[1].message.protocol_message.key;
    assert_eq!(
        (own.id.as_deref(), own.from_me),
        (Some(&*first), Some(true))
    );
    let key = &received[2].message.reaction_message.key;
    assert_eq!(
        (key.id.as_deref(), key.from_me),
        (Some(&*first), Some(false))
    );
    let author = format!("{CONTACT}@s.whatsapp.net");
    assert_eq!(key.participant.as_deref(), Some(&*author));
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_about_no_message_is_refused() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    for kind in ["edit", "revoke", "reaction", "poll_vote", "pin", "keep"] {
        let request = json!({"to": number, "from": CONTACT, "type": kind}).to_string();
        let (status, answer) = control.try_post("/admin/messages", request).await;
        assert_eq!(status, 400, "{kind}: {answer}");
    }
    phone.stop().await;
    simulator.stop().await;
}
