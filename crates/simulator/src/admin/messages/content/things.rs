//! Text, reactions, places, people, polls, appointments, goods, settings.

use waproto::buffa::MessageField;
use waproto::whatsapp::message::{
    ContactMessage, ContactsArrayMessage, EncEventResponseMessage, EncReactionMessage,
    EventMessage, GroupInviteMessage, KeepInChatMessage, LiveLocationMessage, LocationMessage,
    OrderMessage, PinInChatMessage, PollCreationMessage, PollEncValue, PollUpdateMessage,
    ProductMessage, ProtocolMessage, ReactionMessage, RequestPaymentMessage, order_message,
    pin_in_chat_message, poll_creation_message, product_message, protocol_message,
};
use waproto::whatsapp::{KeepType, Message, MessageContextInfo};

use super::super::super::Refused;
use super::{Type, Writing};
use crate::world::{unix_millis, unix_time};

/// A message that holds one thing.
macro_rules! holds {
    ($field:ident: $value:expr) => {
        Message {
            $field: MessageField::some($value),
            ..Message::default()
        }
    };
}

pub(super) fn of(kind: Type, writing: &Writing<'_>) -> Result<Message, Refused> {
    Ok(match kind {
        Type::Location => holds!(location_message: LocationMessage {
            degrees_latitude: Some(-23.561_414),
            degrees_longitude: Some(-46.655_881),
            name: writing.text_or("MASP"),
            address: Some("Av. Paulista, 1578".to_owned()),
            ..LocationMessage::default()
        }),
        Type::LiveLocation => holds!(live_location_message: LiveLocationMessage {
            degrees_latitude: Some(-23.561_414),
            degrees_longitude: Some(-46.655_881),
            accuracy_in_meters: Some(10),
            caption: writing.text(),
            sequence_number: Some(1),
            ..LiveLocationMessage::default()
        }),
        Type::Contact => {
            let name = writing.text_or("Bia").unwrap_or_default();
            holds!(contact_message: card(&name, "5511911110000"))
        }
        Type::Contacts => holds!(contacts_array_message: ContactsArrayMessage {
            display_name: writing.text_or("2 contacts"),
            contacts: vec![card("Bia", "5511911110000"), card("Caio", "5511922220000")],
            ..ContactsArrayMessage::default()
        }),
        Type::Reaction => holds!(reaction_message: ReactionMessage {
            key: writing.target()?,
            text: writing.text_or("👍"),
            sender_timestamp_ms: Some(unix_millis()),
            ..ReactionMessage::default()
        }),
        Type::EncryptedReaction => holds!(enc_reaction_message: EncReactionMessage {
            target_message_key: writing.target()?,
            enc_payload: Some(vec![4; 40]),
            enc_iv: Some(vec![5; 12]),
        }),
        Type::Poll => poll(writing),
        Type::PollVote => holds!(poll_update_message: PollUpdateMessage {
            poll_creation_message_key: writing.target()?,
            vote: MessageField::some(PollEncValue {
                enc_payload: Some(vec![4; 40]),
                enc_iv: Some(vec![5; 12]),
            }),
            sender_timestamp_ms: Some(unix_millis()),
            ..PollUpdateMessage::default()
        }),
        Type::Product | Type::Order | Type::Payment => trade(kind, writing),
        Type::Invite => holds!(group_invite_message: GroupInviteMessage {
            group_jid: Some("120363021033254949@g.us".to_owned()),
            group_name: Some("Family".to_owned()),
            invite_code: Some("AbCdEfGh".to_owned()),
            invite_expiration: Some(unix_time() + 259_200),
            caption: writing.text(),
            ..GroupInviteMessage::default()
        }),
        Type::Event => holds!(event_message: EventMessage {
            name: writing.text_or("Dinner"),
            start_time: Some(unix_time() + 86_400),
            ..EventMessage::default()
        }),
        Type::EventResponse => holds!(enc_event_response_message: EncEventResponseMessage {
            event_creation_message_key: writing.target()?,
            enc_payload: Some(vec![4; 40]),
            enc_iv: Some(vec![5; 12]),
        }),
        Type::Pin => holds!(pin_in_chat_message: PinInChatMessage {
            key: writing.target()?,
            r#type: Some(pin_in_chat_message::Type::PIN_FOR_ALL),
            sender_timestamp_ms: Some(unix_millis()),
        }),
        Type::Keep => holds!(keep_in_chat_message: KeepInChatMessage {
            key: writing.target()?,
            keep_type: Some(KeepType::KEEP_FOR_ALL),
            timestamp_ms: Some(unix_millis()),
        }),
        Type::EphemeralSetting => holds!(protocol_message: ProtocolMessage {
            r#type: Some(protocol_message::Type::EPHEMERAL_SETTING),
            ephemeral_expiration: Some(86_400),
            ..ProtocolMessage::default()
        }),
        _ => Message {
            conversation: writing.text(),
            ..Message::default()
        },
    })
}

fn card(name: &str, number: &str) -> ContactMessage {
    ContactMessage {
        display_name: Some(name.to_owned()),
        vcard: Some(format!(
            "BEGIN:VCARD\nVERSION:3.0\nFN:{name}\nTEL;type=CELL;waid={number}:+{number}\nEND:VCARD"
        )),
        ..ContactMessage::default()
    }
}

/// With the secret under which its votes are encrypted.
fn poll(writing: &Writing<'_>) -> Message {
    let option = |name| poll_creation_message::Option {
        option_name: Some(name),
        ..poll_creation_message::Option::default()
    };
    let poll = PollCreationMessage {
        name: writing.text_or("Pizza?"),
        options: writing.options().into_iter().map(option).collect(),
        selectable_options_count: Some(1),
        ..PollCreationMessage::default()
    };
    Message {
        message_context_info: MessageField::some(MessageContextInfo {
            message_secret: Some(vec![6; 32]),
            ..MessageContextInfo::default()
        }),
        ..holds!(poll_creation_message_v3: poll)
    }
}

fn trade(kind: Type, writing: &Writing<'_>) -> Message {
    let currency = Some("BRL".to_owned());
    match kind {
        Type::Product => holds!(product_message: ProductMessage {
            product: MessageField::some(product_message::ProductSnapshot {
                product_id: Some("7001".to_owned()),
                title: writing.text_or("Lamp"),
                currency_code: currency,
                price_amount1000: Some(99_900),
                ..product_message::ProductSnapshot::default()
            }),
            business_owner_jid: Some(writing.sender().jid().to_string()),
            ..ProductMessage::default()
        }),
        Type::Order => holds!(order_message: OrderMessage {
            order_id: Some("8001".to_owned()),
            item_count: Some(2),
            status: Some(order_message::OrderStatus::INQUIRY),
            message: writing.text_or("Two lamps, please"),
            total_amount1000: Some(199_800),
            total_currency_code: currency,
            ..OrderMessage::default()
        }),
        _ => holds!(request_payment_message: RequestPaymentMessage {
            note_message: MessageField::some(Message {
                conversation: writing.text_or("for the lamps"),
                ..Message::default()
            }),
            currency_code_iso4217: currency,
            amount1000: Some(199_800),
            request_from: Some(writing.receiver().jid().to_string()),
            ..RequestPaymentMessage::default()
        }),
    }
}
