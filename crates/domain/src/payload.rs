//! The body of a delivery. Its first eight fields are the contract's base and are always there.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

/// What a webhook receives, borrowed from the claimed row.
#[derive(Debug, Serialize)]
pub struct Payload<'a> {
    pub client_id: i32,
    pub message_id: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    #[serde(serialize_with = "millis")]
    pub timestamp: DateTime<Utc>,
    #[serde(rename = "type")]
    pub message_type: &'a str,
    pub content: &'a str,
    pub metadata: &'a RawValue,
    pub event: &'a str,
    pub event_id: Uuid,
    pub connection_id: Option<Uuid>,
}

/// RFC 3339 in UTC with milliseconds, as every time in a delivery is written.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn millis<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_contracts_fields_in_their_order() {
        let metadata = RawValue::from_string(r#"{"v":1}"#.to_owned()).unwrap();
        let payload = Payload {
            client_id: 1,
            message_id: "3EB0",
            from: "5511999999999",
            to: "5511888888888",
            timestamp: DateTime::from_timestamp(1_763_899_200, 0).unwrap(),
            message_type: "text",
            content: "Olá!",
            metadata: &metadata,
            event: "message",
            event_id: Uuid::nil(),
            connection_id: Some(Uuid::nil()),
        };
        assert_eq!(
            serde_json::to_string(&payload).unwrap(),
            r#"{"client_id":1,"message_id":"3EB0","from":"5511999999999","to":"5511888888888","timestamp":"2025-11-23T12:00:00.000Z","type":"text","content":"Olá!","metadata":{"v":1},"event":"message","event_id":"00000000-0000-0000-0000-000000000000","connection_id":"00000000-0000-0000-0000-000000000000"}"#
        );
    }
}
