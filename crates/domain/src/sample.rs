//! A sample event: what a client asks for to see what its receiver does with one. It goes the way of
//! every other event, and says of itself that it is a sample.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::event::{self, NewEvent};
use crate::event_type::EventType;
use crate::ids;
use crate::parking;
use crate::statement::Statement;

/// Who writes sample messages: a number that is nobody's.
const CONTACT: &str = "15555550100";
const CHAT: &str = "15555550100@s.whatsapp.net";
const GROUP: &str = "120363000000000001@g.us";
const MESSAGE_ID: &str = "SAMPLE";

/// What became of a request for a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// This event is due now.
    Inserted(Uuid),
    /// The webhook is not active.
    NoReceiver,
    /// The client has no such webhook.
    NotFound,
}

/// Inserts a sample for this webhook, whatever events it wants. Behind an open circuit it is the next
/// probe, and that goes out at once.
pub async fn insert(
    conn: &mut AsyncPgConnection,
    client_id: i32,
    webhook_id: Uuid,
    event_type: EventType,
) -> QueryResult<Sample> {
    conn.transaction(async |conn| {
        let Some(receiver) = Receiver::find(conn, client_id, webhook_id).await? else {
            return Ok(Sample::NotFound);
        };
        if !receiver.is_active {
            return Ok(Sample::NoReceiver);
        }
        let content = Content::of(event_type, &receiver.phone_number);
        let metadata = content.metadata.to_string();
        // Each sample is another one: its source is nothing that could come again.
        let source_id = Uuid::now_v7();
        let id = ids::event(event_type, source_id, webhook_id);
        let new = NewEvent {
            id,
            client_id,
            webhook_id,
            connection_id: receiver.connection_id,
            order_key: None,
            source_id,
            message_stored: false,
            event_type,
            message_id: content.message_id,
            chat: content.chat,
            from: &content.from,
            to: &content.to,
            message_type: content.message_type,
            content: content.text,
            metadata: &metadata,
            timestamp: receiver.now,
        };
        event::insert_new(conn, &[new]).await?;
        let sequence = make_due(conn, id).await?;
        parking::probe_next(conn, webhook_id, id, sequence).await?;
        Ok(Sample::Inserted(id))
    })
    .await
}

async fn make_due(conn: &mut AsyncPgConnection, id: Uuid) -> QueryResult<i64> {
    #[derive(QueryableByName)]
    struct Due {
        #[diesel(sql_type = BigInt)]
        sequence: i64,
    }
    Statement::new(
        "UPDATE whatsapp_webhook_events SET next_retry_at = now() WHERE id = ? RETURNING sequence",
    )
    .bind::<SqlUuid, _>(id)
    .get_result::<Due>(conn)
    .await
    .map(|due| due.sequence)
}

#[derive(QueryableByName)]
struct Receiver {
    #[diesel(sql_type = Text)]
    phone_number: String,
    #[diesel(sql_type = Bool)]
    is_active: bool,
    /// The connection whose events it gets, if there is one.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    connection_id: Option<Uuid>,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

impl Receiver {
    async fn find(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
    ) -> QueryResult<Option<Self>> {
        Statement::new(
            "SELECT w.phone_number, w.is_active, now() AS now,
                 (SELECT c.id FROM whatsapp_connections c
                  WHERE c.client_id = w.client_id AND c.phone_key = w.phone_key AND c.deleted_at IS NULL
                  ORDER BY c.created_at DESC LIMIT 1) AS connection_id
             FROM whatsapp_webhooks w WHERE w.id = ? AND w.client_id = ? AND w.deleted_at IS NULL",
        )
        .bind::<SqlUuid, _>(webhook_id)
        .bind::<Integer, _>(client_id)
        .get_result(conn)
        .await
        .optional()
    }
}

/// What the sample of a type says, in the shape of a real one.
struct Content {
    message_id: &'static str,
    chat: &'static str,
    from: String,
    to: String,
    message_type: &'static str,
    text: &'static str,
    metadata: Value,
}

impl Content {
    fn of(event_type: EventType, number: &str) -> Self {
        let (contact, number) = (CONTACT.to_owned(), number.to_owned());
        let (message_type, text) = match event_type {
            EventType::Message => ("text", "This is a sample message."),
            EventType::MessageSent => ("text", "This is a sample of a sent message."),
            EventType::MessageEdited => ("edited", "This is a sample of an edited message."),
            EventType::MessageReaction => ("reaction", "👍"),
            EventType::MessageRevoked => ("revoked", ""),
            EventType::MessageReceipt => ("receipt", "read"),
            EventType::CallOffer => ("call", ""),
            EventType::GroupUpdate => ("group_update", "subject"),
            EventType::MessageUndecryptable => ("undecryptable", ""),
            EventType::Test => (event_type.as_str(), "This is a test event."),
            // What is no message is told by its name alone, and comes from nobody.
            _ => {
                return Self {
                    message_id: "",
                    chat: "",
                    from: String::new(),
                    message_type: event_type.as_str(),
                    text: "",
                    metadata: metadata(event_type, &number),
                    to: number,
                };
            }
        };
        let metadata = metadata(event_type, &number);
        let (from, to) = match event_type {
            EventType::MessageSent => (number, contact),
            _ => (contact, number),
        };
        Self {
            message_id: MESSAGE_ID,
            chat: if event_type == EventType::GroupUpdate {
                GROUP
            } else {
                CHAT
            },
            from,
            to,
            message_type,
            text,
            metadata,
        }
    }
}

fn metadata(event_type: EventType, number: &str) -> Value {
    // Another message, as if the contact had written it.
    let own_message = json!({"message_id": MESSAGE_ID, "participant": CONTACT});
    let own = match event_type {
        EventType::MessageReaction => {
            let target = json!({"message_id": MESSAGE_ID, "participant": number, "removed": false});
            json!({"chat": CHAT, "push_name": "Recado", "reaction": target})
        }
        EventType::MessageEdited => {
            let mut edit = own_message;
            edit["type"] = "text".into();
            json!({"chat": CHAT, "push_name": "Recado", "edit": edit})
        }
        EventType::MessageRevoked => {
            json!({"chat": CHAT, "push_name": "Recado", "revoke": own_message})
        }
        EventType::MessageReceipt => {
            json!({"chat": CHAT, "kind": "read"})
        }
        EventType::ConnectionQr => json!({"qr": "2@sample", "expires_in_seconds": 20}),
        EventType::ConnectionOpen => json!({"status": "connected", "reason": null}),
        EventType::ConnectionClosed => json!({"status": "disconnected", "reason": null}),
        EventType::ConnectionLoggedOut => json!({"status": "logged_out", "reason": null}),
        EventType::WebhookFailing | EventType::WebhookDeactivated => {
            json!({"webhook_id": Uuid::nil(), "failure_count": 5, "last_error": "answered 500"})
        }
        EventType::WebhookRecovered => {
            json!({"webhook_id": Uuid::nil(), "failure_count": 0, "last_error": null})
        }
        EventType::MessageUndecryptable => json!({"chat": CHAT, "reason": "decryption_failed"}),
        EventType::CallOffer => json!({"chat": CHAT, "call_id": MESSAGE_ID, "video": false}),
        EventType::GroupUpdate => {
            json!({"chat": GROUP, "group": true, "action": "subject", "by": CONTACT,
                "subject": "A sample"})
        }
        _ => json!({"chat": CHAT, "push_name": "Recado"}),
    };
    let mut metadata = Map::from_iter([
        ("v".to_owned(), json!(1)),
        ("sample".to_owned(), json!(true)),
    ]);
    if let Value::Object(own) = own {
        metadata.extend(own);
    }
    Value::Object(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_sample_that_says_that_it_is_one() {
        for event_type in EventType::ALL {
            let sample = Content::of(*event_type, "5511988887777");
            assert_eq!(sample.metadata["sample"], true);
            assert_eq!(sample.metadata["v"], 1);
            let family = event_type.as_str().split('.').next();
            let somebody = !matches!(family, Some("connection" | "webhook"));
            assert_eq!(somebody, !sample.from.is_empty(), "{event_type:?}");
            assert!(
                sample
                    .from
                    .bytes()
                    .chain(sample.to.bytes())
                    .all(|byte| byte.is_ascii_digit())
            );
        }
        let sent = Content::of(EventType::MessageSent, "5511988887777");
        assert_eq!(
            (sent.from.as_str(), sent.to.as_str()),
            ("5511988887777", CONTACT)
        );
    }
}
