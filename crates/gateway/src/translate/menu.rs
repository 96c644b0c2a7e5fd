//! Messages with something to choose from: lists, buttons, templates, interactive messages. What is chosen
//! comes as a [`super::reply`].

use serde::Serialize;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::hydrated_template_button::HydratedButton;
use whatsapp_rust::waproto::whatsapp::message as proto;
use whatsapp_rust::waproto::whatsapp::message::buttons_message::Header as ButtonsHeader;
use whatsapp_rust::waproto::whatsapp::message::interactive_message::InteractiveMessage as Flow;
use whatsapp_rust::waproto::whatsapp::message::interactive_message::header::Media as FlowMedia;
use whatsapp_rust::waproto::whatsapp::message::template_message::Format;
use whatsapp_rust::waproto::whatsapp::message::template_message::hydrated_four_row_template::Title;

use super::content::{Content, said};
use super::media::{self, Found};

#[derive(Serialize, Default)]
struct Menu<'a> {
    header: Option<&'a str>,
    footer: Option<&'a str>,
    /// What opens the list.
    button: Option<&'a str>,
    choices: Vec<Choice<'a>>,
}

#[derive(Serialize, Default)]
struct Choice<'a> {
    /// `reply`, `row`, `url`, `call`, or the name of a flow.
    kind: &'a str,
    id: Option<&'a str>,
    title: Option<&'a str>,
    description: Option<&'a str>,
    /// The title of the list's section, or the text of the card.
    section: Option<&'a str>,
    url: Option<&'a str>,
    phone_number: Option<&'a str>,
    /// Of a flow: JSON in a text.
    params: Option<&'a str>,
}

pub(super) fn of(message: &wa::Message) -> Option<Content<'_>> {
    if let Some(list) = message.list_message.as_option() {
        return Some(of_list(list));
    }
    if let Some(buttons) = message.buttons_message.as_option() {
        return Some(of_buttons(buttons));
    }
    if let Some(interactive) = message.interactive_message.as_option() {
        return Some(of_interactive("interactive", interactive));
    }
    let structured = &message.highly_structured_message.hydrated_hsm;
    let template = message.template_message.as_option();
    of_template(template.or(structured.as_option())?)
}

fn of_list(list: &proto::ListMessage) -> Content<'_> {
    let rows = list.sections.iter().flat_map(|section| {
        section.rows.iter().map(|row| Choice {
            kind: "row",
            id: said(&row.row_id),
            title: said(&row.title),
            description: said(&row.description),
            section: said(&section.title),
            ..Choice::default()
        })
    });
    let menu = Menu {
        header: said(&list.title),
        footer: said(&list.footer_text),
        button: said(&list.button_text),
        choices: rows.collect(),
    };
    let text = said(&list.description).or(menu.header);
    Content::new("list", text.unwrap_or_default()).with("menu", menu)
}

fn of_buttons(message: &proto::ButtonsMessage) -> Content<'_> {
    let buttons = message.buttons.iter().map(|button| Choice {
        kind: "reply",
        id: said(&button.button_id),
        title: said(&button.button_text.display_text),
        params: said(&button.native_flow_info.params_json),
        ..Choice::default()
    });
    let (header, file) = match &message.header {
        Some(ButtonsHeader::Text(text)) => (Some(text.as_str()), None),
        Some(ButtonsHeader::DocumentMessage(file)) => (None, Some(media::document(file))),
        Some(ButtonsHeader::ImageMessage(file)) => (None, Some(media::image(file))),
        Some(ButtonsHeader::VideoMessage(file)) => (None, Some(media::video(file))),
        Some(ButtonsHeader::LocationMessage(place)) => (said(&place.name), None),
        None => (None, None),
    };
    let menu = Menu {
        header,
        footer: said(&message.footer_text),
        choices: buttons.collect(),
        ..Menu::default()
    };
    let text = said(&message.content_text).or(header);
    let content = Content::new("buttons", text.unwrap_or_default());
    media::attached(content.with("menu", menu), file)
}

fn of_template(template: &proto::TemplateMessage) -> Option<Content<'_>> {
    let hydrated = match &template.format {
        Some(Format::HydratedFourRowTemplate(hydrated)) => Some(&**hydrated),
        Some(Format::InteractiveMessageTemplate(interactive)) => {
            return Some(of_interactive("template", interactive));
        }
        Some(Format::FourRowTemplate(_)) | None => template.hydrated_template.as_option(),
    }?;
    let (header, file): (_, Option<Found<'_>>) = match &hydrated.title {
        Some(Title::HydratedTitleText(text)) => (Some(text.as_str()), None),
        Some(Title::DocumentMessage(file)) => (None, Some(media::document(file))),
        Some(Title::ImageMessage(file)) => (None, Some(media::image(file))),
        Some(Title::VideoMessage(file)) => (None, Some(media::video(file))),
        Some(Title::LocationMessage(place)) => (said(&place.name), None),
        None => (None, None),
    };
    let buttons = hydrated.hydrated_buttons.iter();
    let menu = Menu {
        header,
        footer: said(&hydrated.hydrated_footer_text),
        choices: buttons
            .filter_map(|button| button.hydrated_button.as_ref())
            .map(template_button)
            .collect(),
        ..Menu::default()
    };
    let text = said(&hydrated.hydrated_content_text).or(header);
    let content = Content::new("template", text.unwrap_or_default());
    Some(media::attached(content.with("menu", menu), file))
}

fn template_button(button: &HydratedButton) -> Choice<'_> {
    match button {
        HydratedButton::QuickReplyButton(button) => Choice {
            kind: "reply",
            id: said(&button.id),
            title: said(&button.display_text),
            ..Choice::default()
        },
        HydratedButton::UrlButton(button) => Choice {
            kind: "url",
            title: said(&button.display_text),
            url: said(&button.url),
            ..Choice::default()
        },
        HydratedButton::CallButton(button) => Choice {
            kind: "call",
            title: said(&button.display_text),
            phone_number: said(&button.phone_number),
            ..Choice::default()
        },
    }
}

fn of_interactive<'a>(
    message_type: &'static str,
    message: &'a proto::InteractiveMessage,
) -> Content<'a> {
    let header = said(&message.header.title);
    let mut choices = flows(message, None);
    if let Some(Flow::CarouselMessage(carousel)) = &message.interactive_message {
        let cards = carousel.cards.iter();
        choices.extend(cards.flat_map(|card| flows(card, said(&card.body.text))));
    }
    let menu = Menu {
        header,
        footer: said(&message.footer.text),
        choices,
        ..Menu::default()
    };
    let file = match &message.header.media {
        Some(FlowMedia::DocumentMessage(file)) => Some(media::document(file)),
        Some(FlowMedia::ImageMessage(file)) => Some(media::image(file)),
        Some(FlowMedia::VideoMessage(file)) => Some(media::video(file)),
        _ => None,
    };
    let text = said(&message.body.text).or(header);
    let content = Content::new(message_type, text.unwrap_or_default());
    media::attached(content.with("menu", menu), file)
}

fn flows<'a>(message: &'a proto::InteractiveMessage, section: Option<&'a str>) -> Vec<Choice<'a>> {
    let Some(Flow::NativeFlowMessage(flow)) = &message.interactive_message else {
        return Vec::new();
    };
    let buttons = flow.buttons.iter().map(|button| Choice {
        kind: said(&button.name).unwrap_or("flow"),
        params: said(&button.button_params_json),
        section,
        ..Choice::default()
    });
    buttons.collect()
}
