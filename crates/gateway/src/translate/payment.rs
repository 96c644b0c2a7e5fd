//! Money that is sent or asked for.

use serde::Serialize;
use whatsapp_rust::waproto::whatsapp as wa;

use super::change::Target;
use super::content::{Content, said};
use super::parties::Parties;
use super::time;
use super::trade::Money;
use super::wrapper::unwrap;

#[derive(Serialize)]
struct Payment<'a> {
    /// `request`, `sent`, `declined`, `cancelled`.
    kind: &'static str,
    amount: Option<Money<'a>>,
    /// Who is asked.
    payer: Option<String>,
    expires_at: Option<String>,
    /// The request that it is about.
    request: Option<Target<'a>>,
}

impl<'a> Payment<'a> {
    fn about(
        kind: &'static str,
        request: Option<&'a wa::MessageKey>,
        parties: &Parties<'_>,
    ) -> Self {
        Self {
            kind,
            amount: None,
            payer: None,
            expires_at: None,
            request: request.map(|key| Target::of(key, parties)),
        }
    }
}

pub(super) fn of<'a>(message: &'a wa::Message, parties: &Parties<'_>) -> Option<Content<'a>> {
    let (payment, note) = if let Some(request) = message.request_payment_message.as_option() {
        let payment = Payment {
            amount: Money::of(
                request.amount1000.and_then(|amount| amount.try_into().ok()),
                &request.currency_code_iso4217,
            ),
            payer: parties.name(&request.request_from),
            expires_at: time::seconds(request.expiry_timestamp.filter(|at| *at > 0)),
            ..Payment::about("request", None, parties)
        };
        (payment, request.note_message.as_option())
    } else if let Some(sent) = message.send_payment_message.as_option() {
        let request = sent.request_message_key.as_option();
        let payment = Payment::about("sent", request, parties);
        (payment, sent.note_message.as_option())
    } else if let Some(declined) = message.decline_payment_request_message.as_option() {
        let request = declined.key.as_option();
        (Payment::about("declined", request, parties), None)
    } else {
        let cancelled = message.cancel_payment_request_message.as_option()?;
        let request = cancelled.key.as_option();
        (Payment::about("cancelled", request, parties), None)
    };
    let note = note.map(|note| unwrap(note).message);
    let text =
        note.and_then(|note| said(&note.conversation).or(said(&note.extended_text_message.text)));
    Some(Content::new("payment", text.unwrap_or_default()).with("payment", payment))
}
