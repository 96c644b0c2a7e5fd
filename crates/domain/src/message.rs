//! A message as it was received: the row whose commit is what the acknowledgement to WhatsApp means.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, Binary, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::event_type::EventType;
use crate::statement::Statement;

/// A message to be committed. Its id is one of [`crate::ids`]'s.
#[derive(Debug, Clone)]
pub struct NewMessage {
    pub id: Uuid,
    pub client_id: i32,
    pub connection_id: Uuid,
    pub event_type: EventType,
    /// WhatsApp's own id.
    pub message_id: String,
    /// The chat's address as the stanza gave it.
    pub chat: String,
    pub from: String,
    pub to: String,
    pub message_type: String,
    pub content: String,
    /// A JSON object in its written form.
    pub metadata: String,
    pub timestamp: DateTime<Utc>,
    /// The protobuf, kept for what could not be understood.
    pub raw: Option<Vec<u8>>,
    /// Its file, sealed by [`crate::media::File::seal`].
    pub media: Option<Vec<u8>>,
}

/// The longest WhatsApp id that an index entry holds; real ones have 16 to 32 characters.
const MESSAGE_ID_BYTES: usize = 512;

impl NewMessage {
    /// Why PostgreSQL cannot store this row, where that can be told beforehand.
    pub fn poison(&self) -> Option<&'static str> {
        let texts = [
            &self.message_id,
            &self.chat,
            &self.from,
            &self.to,
            &self.message_type,
            &self.content,
            &self.metadata,
        ];
        if texts.iter().any(|text| text.contains('\0')) {
            Some("a text holds a NUL character")
        } else if self.message_id.len() > MESSAGE_ID_BYTES {
            Some("the message id is longer than 512 bytes")
        } else {
            None
        }
    }
}

/// Inserts what is new, in slice order, each with the number of events it will become. Returns the
/// ids of the rows that were not there before.
pub(crate) async fn insert_new(
    conn: &mut AsyncPgConnection,
    batch: &[&NewMessage],
    fan_out: &[i32],
) -> QueryResult<Vec<Uuid>> {
    #[derive(QueryableByName)]
    struct Inserted {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }
    macro_rules! column {
        ($field:ident . as_str) => {
            batch.iter().map(|m| m.$field.as_str()).collect::<Vec<_>>()
        };
        ($field:ident) => {
            batch.iter().map(|m| m.$field).collect::<Vec<_>>()
        };
    }
    let raw: Vec<Option<&[u8]>> = batch.iter().map(|m| m.raw.as_deref()).collect();
    let media: Vec<Option<&[u8]>> = batch.iter().map(|m| m.media.as_deref()).collect();
    let inserted: Vec<Inserted> = Statement::new(
        r#"INSERT INTO whatsapp_messages (id, client_id, connection_id, event_type, message_id, chat,
               "from", "to", message_type, content, metadata, "timestamp", raw, media, fan_out)
           SELECT id, client_id, connection_id, event_type, message_id, chat,
               "from", "to", message_type, content, metadata::json, "timestamp", raw, media, fan_out
           FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
               AS new (id, client_id, connection_id, event_type, message_id, chat,
                       "from", "to", message_type, content, metadata, "timestamp", raw, media, fan_out)
           ON CONFLICT DO NOTHING
           RETURNING id"#,
    )
    .bind::<Array<SqlUuid>, _>(column!(id))
    .bind::<Array<Integer>, _>(column!(client_id))
    .bind::<Array<SqlUuid>, _>(column!(connection_id))
    .bind::<Array<Text>, _>(column!(event_type.as_str))
    .bind::<Array<Text>, _>(column!(message_id.as_str))
    .bind::<Array<Text>, _>(column!(chat.as_str))
    .bind::<Array<Text>, _>(column!(from.as_str))
    .bind::<Array<Text>, _>(column!(to.as_str))
    .bind::<Array<Text>, _>(column!(message_type.as_str))
    .bind::<Array<Text>, _>(column!(content.as_str))
    .bind::<Array<Text>, _>(column!(metadata.as_str))
    .bind::<Array<Timestamptz>, _>(column!(timestamp))
    .bind::<Array<Nullable<Binary>>, _>(raw)
    .bind::<Array<Nullable<Binary>>, _>(media)
    .bind::<Array<Integer>, _>(fan_out)
    .load(conn)
    .await?;
    Ok(inserted.into_iter().map(|row| row.id).collect())
}

/// The form in which a text is committed that PostgreSQL would refuse; any other stays as it is.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The same for a WhatsApp id, which an index holds.
pub fn storable_id(message_id: &str) -> String {
    let mut id = storable(message_id);
    id.truncate(id.floor_char_boundary(MESSAGE_ID_BYTES));
    id
}

/// Since when, in seconds, a message of that WhatsApp id has been committed for the connection in that chat, in
/// whatever form.
pub async fn committed_for(
    conn: &mut AsyncPgConnection,
    connection_id: Uuid,
    chat: &str,
    message_id: &str,
) -> QueryResult<Option<f64>> {
    #[derive(QueryableByName)]
    struct Committed {
        #[diesel(sql_type = Double)]
        seconds: f64,
    }
    let found: Option<Committed> = Statement::new(
        "SELECT extract(epoch FROM now() - created_at)::float8 AS seconds FROM whatsapp_messages
         WHERE connection_id = ? AND message_id = ? AND chat = ?
             AND event_type <> 'message.undecryptable' ORDER BY created_at LIMIT 1",
    )
    .bind::<SqlUuid, _>(connection_id)
    .bind::<Text, _>(storable_id(message_id))
    .bind::<Text, _>(storable(chat))
    .get_result(conn)
    .await
    .optional()?;
    Ok(found.map(|found| found.seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_postgresql_would_refuse_is_made_one_that_it_takes() {
        assert_eq!(storable_id("3EB0C431C26A1916E07E"), "3EB0C431C26A1916E07E");
        assert_eq!(storable_id("a\0b"), "a\u{fffd}b");
        assert_eq!(storable_id(&"x".repeat(513)).len(), 512);
        // Never within a character, also one that stands for a NUL.
        assert_eq!(storable_id(&"\0".repeat(513)), "\u{fffd}".repeat(170));
    }
}
