//! What there is to choose, and what was chosen.

use waproto::buffa::MessageField;
use waproto::whatsapp::hydrated_template_button::{HydratedButton, HydratedQuickReplyButton};
use waproto::whatsapp::message::{
    ButtonsMessage, ButtonsResponseMessage, InteractiveMessage, InteractiveResponseMessage,
    ListMessage, ListResponseMessage, TemplateButtonReplyMessage, TemplateMessage, buttons_message,
    buttons_response_message, interactive_message, interactive_response_message, list_message,
    list_response_message, template_message,
};
use waproto::whatsapp::{HydratedTemplateButton, Message};

use super::{Type, Writing};

/// A choice's id is its place among the options.
pub(super) fn of(kind: Type, writing: &Writing<'_>) -> Option<Message> {
    let choices = || {
        let titles = writing.options().into_iter().enumerate();
        titles.map(|(place, title)| (Some(place.to_string()), Some(title)))
    };
    let question = writing.text_or("Which one?");
    let (id, title) = choices().next().unwrap_or_default();
    let chosen = writing.text().or(title);
    let mut message = Message::default();
    match kind {
        Type::List => {
            let rows = choices().map(|(row_id, title)| list_message::Row {
                row_id,
                title,
                ..list_message::Row::default()
            });
            message.list_message = MessageField::some(ListMessage {
                description: question,
                button_text: Some("Choose".to_owned()),
                list_type: Some(list_message::ListType::SINGLE_SELECT),
                sections: vec![list_message::Section {
                    rows: rows.collect(),
                    ..list_message::Section::default()
                }],
                ..ListMessage::default()
            });
        }
        Type::ListReply => {
            message.list_response_message = MessageField::some(ListResponseMessage {
                title: chosen,
                single_select_reply: MessageField::some(list_response_message::SingleSelectReply {
                    selected_row_id: id,
                }),
                ..ListResponseMessage::default()
            });
        }
        Type::Buttons => {
            let buttons = choices().map(|(button_id, display_text)| buttons_message::Button {
                button_id,
                button_text: MessageField::some(buttons_message::button::ButtonText {
                    display_text,
                }),
                ..buttons_message::Button::default()
            });
            message.buttons_message = MessageField::some(ButtonsMessage {
                content_text: question,
                buttons: buttons.collect(),
                ..ButtonsMessage::default()
            });
        }
        Type::ButtonReply => {
            message.buttons_response_message = MessageField::some(ButtonsResponseMessage {
                selected_button_id: id,
                response: chosen.map(buttons_response_message::Response::SelectedDisplayText),
                ..ButtonsResponseMessage::default()
            });
        }
        Type::Template => {
            let button = |(id, display_text)| HydratedTemplateButton {
                hydrated_button: Some(HydratedButton::QuickReplyButton(Box::new(
                    HydratedQuickReplyButton { id, display_text },
                ))),
                ..HydratedTemplateButton::default()
            };
            let hydrated = template_message::HydratedFourRowTemplate {
                hydrated_content_text: question,
                hydrated_buttons: choices().map(button).collect(),
                ..template_message::HydratedFourRowTemplate::default()
            };
            message.template_message = MessageField::some(TemplateMessage {
                hydrated_template: MessageField::some(hydrated),
                ..TemplateMessage::default()
            });
        }
        Type::TemplateReply => {
            message.template_button_reply_message =
                MessageField::some(TemplateButtonReplyMessage {
                    selected_id: id,
                    selected_display_text: chosen,
                    selected_index: Some(0),
                    ..TemplateButtonReplyMessage::default()
                });
        }
        Type::Interactive => {
            let button = |(id, title): (Option<String>, Option<String>)| {
                let params = serde_json::json!({ "id": id, "display_text": title });
                interactive_message::native_flow_message::NativeFlowButton {
                    name: Some("quick_reply".to_owned()),
                    button_params_json: Some(params.to_string()),
                }
            };
            let flow = interactive_message::NativeFlowMessage {
                buttons: choices().map(button).collect(),
                ..interactive_message::NativeFlowMessage::default()
            };
            message.interactive_message = MessageField::some(InteractiveMessage {
                body: MessageField::some(interactive_message::Body { text: question }),
                interactive_message: Some(
                    interactive_message::InteractiveMessage::NativeFlowMessage(Box::new(flow)),
                ),
                ..InteractiveMessage::default()
            });
        }
        Type::InteractiveReply => {
            let params = serde_json::json!({ "id": id });
            let flow = interactive_response_message::NativeFlowResponseMessage {
                name: Some("quick_reply".to_owned()),
                params_json: Some(params.to_string()),
                ..interactive_response_message::NativeFlowResponseMessage::default()
            };
            let body = interactive_response_message::Body {
                text: chosen,
                ..interactive_response_message::Body::default()
            };
            use interactive_response_message::InteractiveResponseMessage::NativeFlowResponseMessage;
            message.interactive_response_message = MessageField::some(InteractiveResponseMessage {
                body: MessageField::some(body),
                interactive_response_message: Some(NativeFlowResponseMessage(Box::new(flow))),
                ..InteractiveResponseMessage::default()
            });
        }
        _ => return None,
    }
    Some(message)
}
