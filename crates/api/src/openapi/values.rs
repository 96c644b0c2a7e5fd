//! Values whose types are those of other crates, or plain texts in a row, by what may stand in them.

use domain::event_type::EventType;
use domain::parking;
use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use super::schema::{one_of, one_of_or_null, schema, verbatim};

/// What [`domain::phone::Phone`] reads.
pub(crate) enum PhoneNumber {}

/// What [`domain::recipient::Recipient`] reads.
pub(crate) enum Recipient {}

/// Bytes, whatever they are.
pub(crate) enum Binary {}

/// As a person writes a number.
const WRITTEN: &str = r"^ *\+?[ .()/-]*[1-9]([ .()/-]*[0-9]){6,14}[ .()/-]*$";
/// As WhatsApp writes it.
const ADDRESS: &str =
    r"^ *\+?[ ()/-]*[1-9]([ ()/-]*[0-9]){6,14}[ ()/-]*([.:][^@]*)?@(s\.whatsapp\.net|c\.us) *$";

schema! { PhoneNumber, json!({
    "type": "string",
    "description": "A number with its country code, 7 to 15 digits: as people write it (`+55 (11) 98888-8888`) or as \
                    WhatsApp does (`5511988888888@s.whatsapp.net`). Answers have it in digits.",
    "anyOf": [{"pattern": WRITTEN}, {"pattern": ADDRESS}],
    "examples": ["+55 11 98888-8888"],
}) }

schema! { Recipient, json!({
    "type": "string",
    "description": "A person's number, as in `phone_number`, or the address of a group (`…@g.us`) or of a person of \
                    whom only that is known (`…@lid`).",
    "anyOf": [
        {"pattern": WRITTEN},
        {"pattern": ADDRESS},
        {"pattern": r"^ *-*[0-9][0-9-]*@g\.us *$", "maxLength": 45},
        {"pattern": r"^ *[0-9]{1,40}([.:][^@]*)?@lid *$"},
    ],
    "examples": ["5511999999999"],
}) }

/// The bytes of a file that is sent here.
pub(crate) enum FileContent {}

schema! { FileContent, json!({"type": "string", "format": "binary", "minLength": 1}) }

/// This document.
pub(crate) enum Document {}

schema! { Document, json!({"type": "object", "required": ["openapi", "info", "paths"]}) }

schema! { Binary, json!({"description": "Bytes."}) }

/// A number as it is stored.
pub(crate) fn digits() -> RefOr<Schema> {
    verbatim(
        json!({"type": "string", "pattern": "^[1-9][0-9]{6,14}$", "examples": ["5511988888888"]}),
    )
}

pub(crate) fn success() -> RefOr<Schema> {
    one_of(&["success"])
}

pub(crate) fn client_status() -> RefOr<Schema> {
    one_of(&["active"])
}

pub(crate) fn webhook_status() -> RefOr<Schema> {
    one_of(&["active", "failed"])
}

pub(crate) fn event_status() -> RefOr<Schema> {
    one_of(&["pending", "delivered", "failed"])
}

pub(crate) fn connection_status() -> RefOr<Schema> {
    one_of(&["connected", "reconnecting", "disconnected", "logged_out"])
}

pub(crate) fn event_type() -> RefOr<Schema> {
    one_of(&event_types())
}

pub(crate) fn event_type_or_null() -> RefOr<Schema> {
    one_of_or_null(&event_types())
}

fn event_types() -> Vec<&'static str> {
    EventType::ALL.iter().map(|known| known.as_str()).collect()
}

pub(crate) fn parked() -> RefOr<Schema> {
    one_of_or_null(&parking::Reason::ALL.map(parking::Reason::as_str))
}

/// What a delivery looks like; see `deliveries`.
pub(crate) fn payload() -> RefOr<Schema> {
    RefOr::Ref(utoipa::openapi::Ref::from_schema_name("delivery.event"))
}
