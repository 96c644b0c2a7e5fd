use serde_json::{Value, json};
use whatsapp_rust::Jid;
use whatsapp_rust::features::{
    GroupCreateOptions, GroupDescription, GroupParticipantOptions, GroupSubject,
};
use whatsapp_rust::types::events::{Event, GroupUpdate};
use whatsapp_rust::wacore::stanza::groups::GroupNotificationAction as Action;

use crate::harness::{Control, Phone, simulator, text};

const ANA: &str = "5511888880001";
const BIA: &str = "5511888880002";

async fn told(phone: &Phone, what: impl Fn(&Action) -> bool) -> GroupUpdate {
    phone
        .event("a change of a group", |event| match event {
            Event::GroupUpdate(update) if what(&update.action) => Some(update.clone()),
            _ => None,
        })
        .await
}

async fn change(control: &Control, group: &str, what: &str, body: Value) -> Value {
    let path = format!("/admin/groups/{group}/{what}");
    control.post(&path, body.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_hear_of_a_group_and_of_every_change_to_it() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let new = json!({"subject": "team", "members": [ANA, number]});
    let made = control.post("/admin/groups", new.to_string()).await;
    let group = made["group"].as_str().unwrap();
    let created = told(&phone, |action| matches!(action, Action::Create { .. })).await;
    assert_eq!(created.group_jid.to_string(), group);
    assert_eq!(created.participant.unwrap().user, ANA);

    change(&control, group, "add", json!({"members": [BIA]})).await;
    let added = told(&phone, |action| matches!(action, Action::Add { .. })).await;
    let Action::Add { participants, .. } = &added.action else {
        unreachable!()
    };
    assert_eq!(participants[0].jid.user, BIA);
    for (what, body) in [
        ("promote", json!({"members": [BIA]})),
        ("demote", json!({"members": [BIA], "by": ANA})),
        ("subject", json!({"subject": "the team"})),
        ("description", json!({"description": "about us"})),
        ("announce", json!({"on": true})),
        ("announce", json!({"on": false})),
        ("locked", json!({"on": true})),
        ("ephemeral", json!({"seconds": 86_400})),
        ("member-add-mode", json!({"mode": "admin_add"})),
        ("invite-code", json!({})),
        ("remove", json!({"members": [BIA], "by": BIA})),
    ] {
        change(&control, group, what, body).await;
    }
    told(&phone, |action| matches!(action, Action::Promote { .. })).await;
    told(&phone, |action| matches!(action, Action::Demote { .. })).await;
    told(
        &phone,
        |action| matches!(action, Action::Subject { subject, .. } if subject == "the team"),
    )
    .await;
    told(&phone, |action| {
        matches!(action, Action::Description { description: Some(text), .. } if text == "about us")
    })
    .await;
    told(&phone, |action| matches!(action, Action::Announce)).await;
    told(&phone, |action| matches!(action, Action::NotAnnounce)).await;
    told(&phone, |action| matches!(action, Action::Locked { .. })).await;
    told(&phone, |action| {
        matches!(
            action,
            Action::Ephemeral {
                expiration: 86_400,
                ..
            }
        )
    })
    .await;
    told(
        &phone,
        |action| matches!(action, Action::MemberAddMode { mode } if mode == "admin_add"),
    )
    .await;
    told(&phone, |action| matches!(action, Action::Invite { .. })).await;
    let left = told(&phone, |action| matches!(action, Action::Remove { .. })).await;
    assert_eq!(left.participant.unwrap().user, BIA);
    control.undelivered(&number, 0).await;

    let jid: Jid = group.parse().unwrap();
    let metadata = phone.client.groups().get_metadata(&jid).await.unwrap();
    assert_eq!(metadata.subject, "the team");
    assert_eq!(metadata.description.as_deref(), Some("about us"));
    assert!(metadata.is_locked && !metadata.is_announcement);
    assert_eq!(metadata.participants.len(), 2);
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_makes_a_group_and_changes_it_and_others_hear_of_it() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let mut other = Phone::start(&control.address).await;
    let others = other.link(&control, None).await;
    let participants = [ANA, others.as_str()].map(|who| GroupParticipantOptions::new(Jid::pn(who)));
    let options = GroupCreateOptions::new("ours").with_participants(participants.to_vec());
    let made = phone.client.groups().create_group(options).await.unwrap();
    let group = made.metadata.id.clone();
    assert_eq!(made.metadata.participants.len(), 3);
    let created = told(&other, |action| matches!(action, Action::Create { .. })).await;
    assert_eq!(created.participant.unwrap().user, number.as_str());

    let groups = phone.client.groups();
    let added = groups
        .add_participants(&group, &[Jid::pn(BIA), Jid::pn(ANA)])
        .await
        .unwrap();
    assert!(added[0].is_ok());
    assert_eq!(added[1].error.as_deref(), Some("409"));
    groups
        .promote_participants(&group, &[Jid::pn(BIA)])
        .await
        .unwrap();
    let subject = GroupSubject::new("ours too").unwrap();
    groups.set_subject(&group, subject).await.unwrap();
    groups.set_announce(&group, true).await.unwrap();
    groups.set_locked(&group, true).await.unwrap();
    groups
        .remove_participants(&group, &[Jid::pn(ANA)])
        .await
        .unwrap();
    told(&other, |action| matches!(action, Action::Add { .. })).await;
    told(&other, |action| matches!(action, Action::Promote { .. })).await;
    told(&other, |action| matches!(action, Action::Announce)).await;
    told(&other, |action| matches!(action, Action::Remove { .. })).await;

    // Nobody but an admin may.
    let subject = GroupSubject::new("mine").unwrap();
    let refusal = other.client.groups().set_subject(&group, subject).await;
    assert!(refusal.unwrap_err().to_string().contains("401"));
    let link = groups.get_invite_link(&group, false).await.unwrap();
    let again = groups.get_invite_link(&group, false).await.unwrap();
    assert_eq!(link, again);
    other.client.groups().leave(&group).await.unwrap();
    let code = link.rsplit('/').next().unwrap();
    let joined = other.client.groups().join_with_invite_code(code).await;
    assert_eq!(joined.unwrap().group_jid(), &group);

    let shown = control.get(&format!("/admin/groups/{group}")).await;
    assert_eq!(shown["subject"], "ours too");
    assert_eq!(shown["settings"], json!(["announcement", "locked"]));
    assert_eq!(shown["admins"], json!([number, BIA]));
    let sent = phone
        .client
        .send_message(group.clone(), text("welcome back"))
        .await
        .unwrap();
    assert_eq!(other.receives(1).await[0].info.id, sent.message_id);
    for phone in [&mut phone, &mut other] {
        phone.stop().await;
    }
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_linked_to_a_community_and_taken_out_of_it() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let new = json!({"subject": "town", "members": [ANA, number], "community": true});
    let town = control.post("/admin/groups", new.to_string()).await;
    let new = json!({"subject": "street", "members": [number, BIA], "parent": town["group"],
        "description": "neighbours"});
    let street = control.post("/admin/groups", new.to_string()).await;
    assert_eq!(street["parent"], town["group"]);
    told(
        &phone,
        |action| matches!(action, Action::Link { link_type, .. } if link_type == "sub_group"),
    )
    .await;
    told(
        &phone,
        |action| matches!(action, Action::Link { link_type, .. } if link_type == "parent_group"),
    )
    .await;
    let (town, street) = (
        town["group"].as_str().unwrap(),
        street["group"].as_str().unwrap(),
    );
    let jid: Jid = street.parse().unwrap();
    let metadata = phone.client.groups().get_metadata(&jid).await.unwrap();
    assert_eq!(metadata.parent_group_jid.unwrap().to_string(), town);
    let community = phone.client.community();
    let all = community
        .get_linked_groups_participants(&town.parse::<Jid>().unwrap())
        .await
        .unwrap();
    assert_eq!(all.len(), 3);
    change(&control, town, "unlink", json!({"groups": [street]})).await;
    told(&phone, |action| matches!(action, Action::Unlink { .. })).await;
    change(&control, town, "delete", json!({})).await;
    told(&phone, |action| matches!(action, Action::Delete { .. })).await;
    assert_eq!(
        control.get("/admin/groups").await.as_array().unwrap().len(),
        1
    );
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_is_set_by_a_client_and_deleted_by_it() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let mut phone = Phone::start(&control.address).await;
    let number = phone.link(&control, None).await;
    let new = json!({"subject": "team", "members": [number, ANA]});
    let made = control.post("/admin/groups", new.to_string()).await;
    let group: Jid = made["group"].as_str().unwrap().parse().unwrap();
    let groups = phone.client.groups();
    for wanted in [Some("what it is"), None] {
        let description = wanted.map(|text| GroupDescription::new(text).unwrap());
        let before = whatsapp_rust::features::PreviousDescription::Resolve;
        groups
            .set_description(&group, description, before)
            .await
            .unwrap();
        let shown = control.get(&format!("/admin/groups/{group}")).await;
        assert_eq!(shown["description"].as_str(), wanted);
    }
    phone.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_make_no_sense_are_refused() {
    let simulator = simulator(None).await;
    let control = Control::of(&simulator);
    let new = json!({"subject": "team", "members": [ANA]}).to_string();
    let made = control.post("/admin/groups", new).await;
    let group = made["group"].as_str().unwrap();
    for (path, body, status, why) in [
        (
            "/admin/groups".to_owned(),
            json!({"subject": "x", "members": []}),
            400,
            "members",
        ),
        (
            "/admin/groups".to_owned(),
            json!({"subject": "x", "members": [ANA], "colour": 1}),
            400,
            "colour",
        ),
        (
            "/admin/groups/1/add".to_owned(),
            json!({"members": [BIA]}),
            404,
            "no group",
        ),
        (
            format!("/admin/groups/{group}/paint"),
            json!({}),
            404,
            "paint",
        ),
        (
            format!("/admin/groups/{group}/locked"),
            json!({"off": 1}),
            400,
            "off",
        ),
        (
            format!("/admin/groups/{group}/add"),
            json!({"members": ["x"]}),
            400,
            "number",
        ),
    ] {
        let (answered, answer) = control.try_post(&path, body.to_string()).await;
        assert_eq!(answered, status, "{path} {body}: {answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(why), "{path} {body}: {error}");
    }
    let again = change(&control, group, "add", json!({"members": [ANA]})).await;
    assert_eq!(again["refused"], json!({ANA: 409}));
    simulator.stop().await;
}
