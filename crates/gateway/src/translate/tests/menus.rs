//! What there is to choose, and what was chosen.

use whatsapp_rust::waproto::whatsapp::hydrated_template_button as button;
use whatsapp_rust::waproto::whatsapp::message as proto;

use super::*;

#[test]
fn a_list_and_the_row_that_was_chosen() {
    let row = |id: &str| proto::list_message::Row {
        row_id: some(id),
        title: some("Small"),
        description: some("30 cm"),
    };
    let list = proto::ListMessage {
        title: some("Pizzas"),
        description: some("Which size?"),
        button_text: some("Sizes"),
        footer_text: some("delivered warm"),
        sections: vec![proto::list_message::Section {
            title: some("Sizes"),
            rows: vec![row("s")],
        }],
        ..Default::default()
    };
    let reply = proto::ListResponseMessage {
        title: some("Small"),
        description: some("30 cm"),
        single_select_reply: MessageField::some(proto::list_response_message::SingleSelectReply {
            selected_row_id: some("s"),
        }),
        ..Default::default()
    };
    let all = [
        content(&holds!(list_message: list)),
        content(&holds!(list_response_message: reply)),
    ];
    insta::assert_json_snapshot!(all, @r#"
    [
      {
        "content": "Which size?",
        "metadata": {
          "menu": {
            "button": "Sizes",
            "choices": [
              {
                "description": "30 cm",
                "id": "s",
                "kind": "row",
                "section": "Sizes",
                "title": "Small"
              }
            ],
            "footer": "delivered warm",
            "header": "Pizzas"
          }
        },
        "type": "list"
      },
      {
        "content": "Small",
        "metadata": {
          "reply": {
            "description": "30 cm",
            "id": "s",
            "kind": "list",
            "title": "Small"
          }
        },
        "type": "list_reply"
      }
    ]
    "#);
}

#[test]
fn buttons_and_the_one_that_was_pressed() {
    let buttons = proto::ButtonsMessage {
        content_text: some("Confirm?"),
        header: Some(proto::buttons_message::Header::Text("Order 7".to_owned())),
        buttons: vec![proto::buttons_message::Button {
            button_id: some("yes"),
            button_text: MessageField::some(proto::buttons_message::button::ButtonText {
                display_text: some("Yes"),
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    let reply = proto::ButtonsResponseMessage {
        selected_button_id: some("yes"),
        response: Some(
            proto::buttons_response_message::Response::SelectedDisplayText("Yes".to_owned()),
        ),
        ..Default::default()
    };
    let all = [
        content(&holds!(buttons_message: buttons)),
        content(&holds!(buttons_response_message: reply)),
    ];
    insta::assert_json_snapshot!(all, @r#"
    [
      {
        "content": "Confirm?",
        "metadata": {
          "menu": {
            "choices": [
              {
                "id": "yes",
                "kind": "reply",
                "title": "Yes"
              }
            ],
            "header": "Order 7"
          }
        },
        "type": "buttons"
      },
      {
        "content": "Yes",
        "metadata": {
          "reply": {
            "id": "yes",
            "kind": "button",
            "title": "Yes"
          }
        },
        "type": "button_reply"
      }
    ]
    "#);
}

#[test]
fn a_template_and_the_reply_to_it() {
    let hydrated = |button| wa::HydratedTemplateButton {
        index: Some(1),
        hydrated_button: Some(button),
    };
    let link = button::HydratedURLButton {
        display_text: some("Track"),
        url: some("https://example.com/7"),
        ..Default::default()
    };
    let call = button::HydratedCallButton {
        display_text: some("Call"),
        phone_number: some("+55 11 3333-0000"),
    };
    let template = proto::TemplateMessage {
        hydrated_template: MessageField::some(proto::template_message::HydratedFourRowTemplate {
            hydrated_content_text: some("Your order is on its way"),
            hydrated_footer_text: some("Lamps Ltd"),
            hydrated_buttons: vec![
                hydrated(button::HydratedButton::UrlButton(Box::new(link))),
                hydrated(button::HydratedButton::CallButton(Box::new(call))),
            ],
            ..Default::default()
        }),
        ..Default::default()
    };
    let reply = proto::TemplateButtonReplyMessage {
        selected_id: some("stop"),
        selected_display_text: some("Stop"),
        selected_index: Some(2),
        ..Default::default()
    };
    let all = [
        content(&holds!(template_message: template)),
        content(&holds!(template_button_reply_message: reply)),
    ];
    insta::assert_json_snapshot!(all, @r#"
    [
      {
        "content": "Your order is on its way",
        "metadata": {
          "menu": {
            "choices": [
              {
                "kind": "url",
                "title": "Track",
                "url": "https://example.com/7"
              },
              {
                "kind": "call",
                "phone_number": "+55 11 3333-0000",
                "title": "Call"
              }
            ],
            "footer": "Lamps Ltd"
          }
        },
        "type": "template"
      },
      {
        "content": "Stop",
        "metadata": {
          "reply": {
            "id": "stop",
            "index": 2,
            "kind": "template",
            "title": "Stop"
          }
        },
        "type": "button_reply"
      }
    ]
    "#);
}

#[test]
fn an_interactive_message_and_the_reply_to_it() {
    use proto::interactive_message::InteractiveMessage as Flow;
    let flow = proto::interactive_message::NativeFlowMessage {
        buttons: vec![
            proto::interactive_message::native_flow_message::NativeFlowButton {
                name: some("quick_reply"),
                button_params_json: some(r#"{"display_text":"Yes","id":"y"}"#),
            },
        ],
        ..Default::default()
    };
    let interactive = proto::InteractiveMessage {
        body: MessageField::some(proto::interactive_message::Body {
            text: some("Ready?"),
        }),
        interactive_message: Some(Flow::NativeFlowMessage(Box::new(flow))),
        ..Default::default()
    };
    use proto::interactive_response_message::InteractiveResponseMessage as Response;
    let chosen = proto::interactive_response_message::NativeFlowResponseMessage {
        name: some("quick_reply"),
        params_json: some(r#"{"id":"y"}"#),
        ..Default::default()
    };
    let reply = proto::InteractiveResponseMessage {
        body: MessageField::some(proto::interactive_response_message::Body {
            text: some("Yes"),
            ..Default::default()
        }),
        interactive_response_message: Some(Response::NativeFlowResponseMessage(Box::new(chosen))),
        ..Default::default()
    };
    let all = [
        content(&holds!(interactive_message: interactive)),
        content(&holds!(interactive_response_message: reply)),
    ];
    insta::assert_json_snapshot!(all, @r#"
    [
      {
        "content": "Ready?",
        "metadata": {
          "menu": {
            "choices": [
              {
                "kind": "quick_reply",
                "params": "{\"display_text\":\"Yes\",\"id\":\"y\"}"
              }
            ]
          }
        },
        "type": "interactive"
      },
      {
        "content": "Yes",
        "metadata": {
          "reply": {
            "id": "y",
            "kind": "interactive",
            "name": "quick_reply",
            "params": "{\"id\":\"y\"}",
            "title": "Yes"
          }
        },
        "type": "interactive_reply"
      }
    ]
    "#);
}
