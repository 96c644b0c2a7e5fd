//! From what a client sends to WhatsApp's protobuf. Pure.

use domain::outbox::{Body, Content, Target};
use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message as part;

use crate::files::Placed;

mod media;

/// The message to an address. A reaction carries the time at which it was asked for, in milliseconds; a file
/// is where it was placed.
pub(crate) fn compose(
    content: &Content,
    to: &str,
    asked_at_ms: i64,
    placed: Option<&Placed>,
) -> wa::Message {
    let context = context(content.reply_to.as_ref());
    match &content.body {
        Body::Text { text } => match context.is_set() {
            false => wa::Message {
                conversation: Some(text.clone()),
                ..Default::default()
            },
            true => wa::Message {
                extended_text_message: MessageField::some(part::ExtendedTextMessage {
                    text: Some(text.clone()),
                    context_info: context,
                    ..Default::default()
                }),
                ..Default::default()
            },
        },
        Body::Location {
            latitude,
            longitude,
            name,
            address,
        } => wa::Message {
            location_message: MessageField::some(part::LocationMessage {
                degrees_latitude: Some(*latitude),
                degrees_longitude: Some(*longitude),
                name: name.clone(),
                address: address.clone(),
                context_info: context,
                ..Default::default()
            }),
            ..Default::default()
        },
        Body::Contact { name, phone_number } => wa::Message {
            contact_message: MessageField::some(part::ContactMessage {
                display_name: Some(name.clone()),
                vcard: Some(vcard(name, phone_number)),
                context_info: context,
                ..Default::default()
            }),
            ..Default::default()
        },
        Body::Media(attachment) => match placed {
            Some(placed) => media::of(attachment, placed, context),
            None => wa::Message::default(),
        },
        Body::Reaction { target, emoji } => wa::Message {
            reaction_message: MessageField::some(part::ReactionMessage {
                key: MessageField::some(wa::MessageKey {
                    remote_jid: Some(to.to_owned()),
                    from_me: Some(target.from_me),
                    id: Some(target.message_id.clone()),
                    participant: (to.ends_with("@g.us") && !target.from_me)
                        .then(|| target.sender.clone()),
                }),
                text: Some(emoji.clone()),
                sender_timestamp_ms: Some(asked_at_ms),
                ..Default::default()
            }),
            ..Default::default()
        },
    }
}

fn context(reply_to: Option<&Target>) -> MessageField<wa::ContextInfo> {
    let Some(target) = reply_to else {
        return MessageField::none();
    };
    MessageField::some(wa::ContextInfo {
        stanza_id: Some(target.message_id.clone()),
        participant: Some(target.sender.clone()),
        quoted_message: MessageField::some(wa::Message {
            conversation: Some(target.text.clone()),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// RFC 6350's ancestor, version 3.0, as phones read it.
fn vcard(name: &str, phone_number: &str) -> String {
    let name = escaped(name);
    format!(
        "BEGIN:VCARD\nVERSION:3.0\nN:;{name};;;\nFN:{name}\n\
         TEL;type=CELL;waid={phone_number}:+{phone_number}\nEND:VCARD"
    )
}

/// RFC 6350, section 3.4.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\\' | ',' | ';' => out.extend(['\\', char]),
            '\n' => out.push_str("\\n"),
            '\r' => {}
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANA: &str = "5511911112222@s.whatsapp.net";

    fn target() -> Target {
        Target {
            message_id: "3EB0A".to_owned(),
            from_me: false,
            sender: ANA.to_owned(),
            text: "Abrem hoje?".to_owned(),
        }
    }

    fn compose(body: Body, reply_to: Option<Target>, to: &str) -> wa::Message {
        super::compose(&Content { body, reply_to }, to, 1_000, None)
    }

    #[test]
    fn a_text_is_plain_and_an_answer_quotes_what_it_answers() {
        let text = || Body::Text {
            text: "Sim".to_owned(),
        };
        let plain = compose(text(), None, ANA);
        assert_eq!(plain.conversation.as_deref(), Some("Sim"));
        let answer = compose(text(), Some(target()), ANA);
        let extended = answer.extended_text_message.as_option().unwrap();
        assert_eq!(extended.text.as_deref(), Some("Sim"));
        let context = extended.context_info.as_option().unwrap();
        assert_eq!(context.stanza_id.as_deref(), Some("3EB0A"));
        assert_eq!(context.participant.as_deref(), Some(ANA));
        let quoted = context.quoted_message.as_option().unwrap();
        assert_eq!(quoted.conversation.as_deref(), Some("Abrem hoje?"));
    }

    #[test]
    fn a_reaction_in_a_group_names_who_wrote_the_message() {
        let react = |to: &str| {
            let body = Body::Reaction {
                target: target(),
                emoji: "👍".to_owned(),
            };
            let message = compose(body, None, to);
            let reaction = message.reaction_message.as_option().unwrap().clone();
            (
                reaction.text,
                reaction.key.as_option().unwrap().participant.clone(),
            )
        };
        let thumb = || Some("👍".to_owned());
        assert_eq!(react(ANA), (thumb(), None));
        assert_eq!(react("1@g.us"), (thumb(), Some(ANA.to_owned())));
    }

    #[test]
    fn a_contact_cannot_add_lines_to_its_card() {
        let body = Body::Contact {
            name: "Ana; da\nSilva".to_owned(),
            phone_number: "5511911112222".to_owned(),
        };
        let message = compose(body, None, ANA);
        let card = message.contact_message.as_option().unwrap().vcard.clone();
        assert_eq!(
            card.unwrap(),
            "BEGIN:VCARD\nVERSION:3.0\nN:;Ana\\; da\\nSilva;;;\nFN:Ana\\; da\\nSilva\n\
             TEL;type=CELL;waid=5511911112222:+5511911112222\nEND:VCARD"
        );
    }

    #[test]
    fn a_place_is_where_it_is() {
        let body = Body::Location {
            latitude: -23.5,
            longitude: -46.6,
            name: Some("Sé".to_owned()),
            address: None,
        };
        let message = compose(body, Some(target()), ANA);
        let place = message.location_message.as_option().unwrap();
        assert_eq!(place.degrees_latitude, Some(-23.5));
        assert!(place.context_info.is_set());
    }
}
