//! What somebody chose from a menu: see [`super::menu`].

use serde::Serialize;
use serde_json::Value;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message as proto;
use whatsapp_rust::waproto::whatsapp::message::buttons_response_message::Response;
use whatsapp_rust::waproto::whatsapp::message::interactive_response_message::InteractiveResponseMessage as Flow;

use super::content::{Content, said};

#[derive(Serialize, Default)]
struct Reply<'a> {
    kind: &'static str,
    /// What the menu's author gave the choice as its id.
    id: Option<String>,
    title: &'a str,
    description: Option<&'a str>,
    index: Option<u32>,
    /// Of a flow.
    name: Option<&'a str>,
    /// Of a flow: what was filled in, as JSON in a text.
    params: Option<&'a str>,
}

impl<'a> Reply<'a> {
    fn content(self, message_type: &'static str) -> Content<'a> {
        Content::new(message_type, self.title).with("reply", self)
    }
}

pub(super) fn of(message: &wa::Message) -> Option<Content<'_>> {
    if let Some(reply) = message.buttons_response_message.as_option() {
        let title = match &reply.response {
            Some(Response::SelectedDisplayText(title)) => title,
            None => "",
        };
        let reply = Reply {
            kind: "button",
            id: reply.selected_button_id.clone(),
            title,
            ..Reply::default()
        };
        Some(reply.content("button_reply"))
    } else if let Some(reply) = message.template_button_reply_message.as_option() {
        let reply = Reply {
            kind: "template",
            id: reply.selected_id.clone(),
            title: said(&reply.selected_display_text).unwrap_or_default(),
            index: reply.selected_index,
            ..Reply::default()
        };
        Some(reply.content("button_reply"))
    } else if let Some(reply) = message.list_response_message.as_option() {
        let reply = Reply {
            kind: "list",
            id: reply.single_select_reply.selected_row_id.clone(),
            title: said(&reply.title).unwrap_or_default(),
            description: said(&reply.description),
            ..Reply::default()
        };
        Some(reply.content("list_reply"))
    } else {
        message
            .interactive_response_message
            .as_option()
            .map(interactive)
    }
}

fn interactive(reply: &proto::InteractiveResponseMessage) -> Content<'_> {
    let (name, params) = match &reply.interactive_response_message {
        Some(Flow::NativeFlowResponseMessage(flow)) => (said(&flow.name), said(&flow.params_json)),
        None => (None, None),
    };
    let reply = Reply {
        kind: "interactive",
        id: params.and_then(chosen),
        title: said(&reply.body.text).unwrap_or_default(),
        name,
        params,
        ..Reply::default()
    };
    reply.content("interactive_reply")
}

/// Longer parameters are those of a form.
const CHOICE: usize = 16 * 1024;

/// Quick replies and lists among the flows say the choice's id in their parameters.
fn chosen(params: &str) -> Option<String> {
    if params.len() > CHOICE {
        return None;
    }
    let params: Value = serde_json::from_str(params).ok()?;
    params.get("id")?.as_str().map(str::to_owned)
}
