//! Cards of people.

use serde::Serialize;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message::ContactMessage;

use super::content::{Content, said};

#[derive(Serialize)]
struct Contact<'a> {
    name: &'a str,
    /// Digits, in the order of the card.
    phone_numbers: Vec<String>,
    vcard: Option<&'a str>,
}

pub(super) fn of(message: &wa::Message) -> Option<Content<'_>> {
    let cards = match message.contact_message.as_option() {
        Some(card) => std::slice::from_ref(card),
        None => &*message.contacts_array_message.as_option()?.contacts,
    };
    let contacts: Vec<Contact<'_>> = cards.iter().map(contact).collect();
    let names: Vec<&str> = contacts.iter().map(|contact| contact.name).collect();
    Some(Content::new("contacts", names.join(", ")).with("contacts", contacts))
}

fn contact(card: &ContactMessage) -> Contact<'_> {
    let vcard = said(&card.vcard);
    let formatted = || lines(vcard?, "FN").next().map(|(_, name)| name);
    Contact {
        name: said(&card.display_name)
            .or_else(formatted)
            .unwrap_or_default(),
        phone_numbers: lines(vcard.unwrap_or_default(), "TEL")
            .filter_map(|(parameters, number)| phone_number(parameters, number))
            .collect(),
        vcard,
    }
}

/// The parameters and values of one property of a vCard, which may be grouped (`item1.TEL`).
fn lines<'a>(vcard: &'a str, property: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    vcard.lines().filter_map(move |line| {
        let (head, value) = line.split_once(':')?;
        let (name, parameters) = head.split_once(';').unwrap_or((head, ""));
        let name = name.rsplit_once('.').map_or(name, |(_, name)| name);
        name.eq_ignore_ascii_case(property)
            .then_some((parameters, value.trim()))
    })
}

/// WhatsApp's own number of the card's entry (`waid`), else the digits of what is written.
fn phone_number(parameters: &str, written: &str) -> Option<String> {
    let own = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.eq_ignore_ascii_case("waid").then_some(value)
    });
    let digits: String = own
        .unwrap_or(written)
        .chars()
        .filter(char::is_ascii_digit)
        .take(15)
        .collect();
    (!digits.is_empty()).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_cards_as_phones_write_them() {
        let vcard = "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Bia Souza\r\n\
            TEL;type=CELL;type=VOICE;waid=5511999990000:+55 11 99999-0000\r\n\
            item1.TEL:+55 (11) 3333-0000\r\nTEL;type=HOME:n/a\r\nEND:VCARD";
        let card = ContactMessage {
            vcard: Some(vcard.to_owned()),
            ..Default::default()
        };
        let contact = contact(&card);
        assert_eq!(contact.name, "Bia Souza");
        assert_eq!(contact.phone_numbers, ["5511999990000", "551133330000"]);
    }

    #[test]
    fn what_is_no_card_has_no_numbers() {
        for vcard in ["", ":", "TEL", "TEL;:", "TEL;waid=:x", "\0:\0;"] {
            let card = ContactMessage {
                vcard: Some(vcard.to_owned()),
                ..Default::default()
            };
            assert!(contact(&card).phone_numbers.is_empty(), "{vcard:?}");
        }
    }
}
