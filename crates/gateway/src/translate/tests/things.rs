//! Places, people, and what is set in a chat.

use whatsapp_rust::waproto::whatsapp::message as proto;

use super::*;

#[test]
fn a_place_and_a_live_one() {
    let place = proto::LocationMessage {
        degrees_latitude: Some(-23.5614),
        degrees_longitude: Some(-46.6559),
        name: some("MASP"),
        address: some("Av. Paulista, 1578"),
        ..Default::default()
    };
    let live = proto::LiveLocationMessage {
        degrees_latitude: Some(f64::NAN),
        degrees_longitude: Some(181.0),
        accuracy_in_meters: Some(5),
        speed_in_mps: Some(1.5),
        sequence_number: Some(3),
        caption: some("on my way"),
        ..Default::default()
    };
    let all = [
        content(&holds!(location_message: place)),
        content(&holds!(live_location_message: live)),
    ];
    insta::assert_json_snapshot!(all, @r#"
    [
      {
        "content": "MASP",
        "metadata": {
          "location": {
            "address": "Av. Paulista, 1578",
            "latitude": -23.5614,
            "longitude": -46.6559,
            "name": "MASP"
          }
        },
        "type": "location"
      },
      {
        "content": "on my way",
        "metadata": {
          "location": {
            "accuracy_meters": 5,
            "live": true,
            "sequence": 3,
            "speed_mps": 1.5
          }
        },
        "type": "location"
      }
    ]
    "#);
}

#[test]
fn one_contact_and_several() {
    let card = |name: &str, number: &str| proto::ContactMessage {
        display_name: some(name),
        vcard: Some(format!(
            "BEGIN:VCARD\nFN:{name}\nTEL;waid={number}:+{number}\nEND:VCARD"
        )),
        ..Default::default()
    };
    let several = proto::ContactsArrayMessage {
        display_name: some("2 contacts"),
        contacts: vec![card("Bia", "5511911110000"), card("Caio", "5511922220000")],
        ..Default::default()
    };
    let one = card("Bia", "5511911110000");
    let all = [
        content(&holds!(contact_message: one)),
        content(&holds!(contacts_array_message: several)),
    ];
    insta::assert_json_snapshot!(all, @r#"
    [
      {
        "content": "Bia",
        "metadata": {
          "contacts": [
            {
              "name": "Bia",
              "phone_numbers": [
                "5511911110000"
              ],
              "vcard": "BEGIN:VCARD\nFN:Bia\nTEL;waid=5511911110000:+5511911110000\nEND:VCARD"
            }
          ]
        },
        "type": "contacts"
      },
      {
        "content": "Bia, Caio",
        "metadata": {
          "contacts": [
            {
              "name": "Bia",
              "phone_numbers": [
                "5511911110000"
              ],
              "vcard": "BEGIN:VCARD\nFN:Bia\nTEL;waid=5511911110000:+5511911110000\nEND:VCARD"
            },
            {
              "name": "Caio",
              "phone_numbers": [
                "5511922220000"
              ],
              "vcard": "BEGIN:VCARD\nFN:Caio\nTEL;waid=5511922220000:+5511922220000\nEND:VCARD"
            }
          ]
        },
        "type": "contacts"
      }
    ]
    "#);
}

#[test]
fn what_is_set_in_a_chat_is_told_as_a_message() {
    let pin = proto::PinInChatMessage {
        key: key("PINNED", true),
        r#type: Some(proto::pin_in_chat_message::Type::PIN_FOR_ALL),
        ..Default::default()
    };
    let keep = proto::KeepInChatMessage {
        key: key("KEPT", false),
        keep_type: Some(wa::KeepType::UNDO_KEEP_FOR_ALL),
        ..Default::default()
    };
    let timer = proto::ProtocolMessage {
        r#type: Some(proto::protocol_message::Type::EPHEMERAL_SETTING),
        ephemeral_expiration: Some(86_400),
        ..Default::default()
    };
    let all = [
        content(&holds!(pin_in_chat_message: pin)),
        content(&holds!(keep_in_chat_message: keep)),
        content(&holds!(protocol_message: timer)),
    ];
    insta::assert_json_snapshot!(all, @r#"
    [
      {
        "content": "",
        "metadata": {
          "pin": {
            "message_id": "PINNED",
            "participant": "5511999999999",
            "pinned": true
          }
        },
        "type": "pin"
      },
      {
        "content": "",
        "metadata": {
          "keep": {
            "kept": false,
            "message_id": "KEPT",
            "participant": "5511888888888"
          }
        },
        "type": "keep"
      },
      {
        "content": "",
        "metadata": {
          "ephemeral_seconds": 86400
        },
        "type": "ephemeral_setting"
      }
    ]
    "#);
}
