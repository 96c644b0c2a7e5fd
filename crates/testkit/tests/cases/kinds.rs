//! One of every kind of message, from the simulated WhatsApp to a webhook.

use std::time::Duration;

use serde_json::{Map, Value, json};
use testkit::eventually;
use testkit::kinds::kinds;
use testkit::system::postbox::Arrival;
use testkit::system::{Settings, System};

use super::alone;

const NUMBER: &str = "5511999999999";
const ANA: &str = "5511888888888";
const LONG: Duration = Duration::from_secs(60);

async fn send(system: &System, asked: &Value, more: &Value) -> String {
    let mut message: Map<String, Value> = Map::new();
    for part in [&json!({"to": NUMBER, "from": ANA}), asked, more] {
        message.extend(part.as_object().unwrap().clone());
    }
    system.phones.ask(&message).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_webhook_gets_one_of_every_kind_directly_and_in_a_group_as_it_is_published() {
    let _alone = alone().await;
    let system = System::start(Settings::default()).await.unwrap();
    system.open(NUMBER).await.unwrap();
    let mut sent = Vec::new();
    for group in [json!({}), json!({"group": "family", "addressing": "lid"})] {
        let target = send(&system, &json!({"text": "first"}), &group).await;
        for kind in kinds(&target, NUMBER) {
            let id = send(&system, &kind.asked, &group).await;
            sent.push((id, kind, group != json!({})));
        }
    }
    let count = sent.len() + 2;
    let arrivals = eventually(LONG, async || {
        let arrivals = system.postbox.since(0).await.unwrap();
        match arrivals.len() {
            len if len >= count => Ok(arrivals),
            len => Err(format!("{len} of {count} are there")),
        }
    })
    .await;
    assert_eq!(arrivals.len(), count, "each once");
    for (id, kind, in_group) in sent {
        let is_its = |arrival: &&Arrival| arrival.field("message_id") == id.as_str();
        let arrival = arrivals.iter().find(is_its).unwrap();
        let about = format!("{}: {arrival:?}", kind.asked);
        assert_eq!(arrival.schema_error, None, "{about}");
        assert_eq!(arrival.signature_ok, Some(true), "{about}");
        for (field, expected) in [
            ("event", kind.event),
            ("type", kind.message_type),
            ("content", kind.content),
            ("from", ANA),
            ("to", NUMBER),
        ] {
            assert_eq!(arrival.field(field), expected, "{field} of {about}");
        }
        let metadata = arrival.field("metadata");
        assert_eq!(metadata["group"] == true, in_group, "{about}");
        if let Some(own) = kind.own {
            assert!(!metadata[own].is_null(), "{about}");
        }
    }
    system.stop().await.unwrap();
}
