//! What clients send. A row is written before anything is sent, with the id that the message will have; the
//! gateway that holds the session sends it, as often as it takes, under that one id.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{
    BigInt, Binary, Bool, Double, Integer, Json, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::inbox::{self, Accepted};
use crate::jid::Jid;
use crate::lease::Lease;
use crate::media::Kind;
use crate::message::NewMessage;
use crate::phone::Phone;
use crate::statement::Statement;

/// What is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Content {
    #[serde(flatten)]
    pub body: Body,
    /// The message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Target>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Body {
    Text {
        text: String,
    },
    Location {
        latitude: f64,
        longitude: f64,
        name: Option<String>,
        address: Option<String>,
    },
    Contact {
        name: String,
        phone_number: String,
    },
    Media(Attachment),
    /// An empty emoji takes the reaction back.
    Reaction {
        target: Target,
        emoji: String,
    },
}

/// A file that is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    pub kind: Kind,
    pub source: Source,
    pub mimetype: Option<String>,
    pub file_name: Option<String>,
    pub caption: Option<String>,
    /// Shown as one that was recorded.
    #[serde(default)]
    pub voice: bool,
}

/// Where the file is. No key of it is here: the outbox is not sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Url(String),
    /// One of [`crate::upload`]'s.
    Upload(Uuid),
    /// The file of a message of the client's.
    Message(Uuid),
}

/// A message that is answered or reacted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub message_id: String,
    /// The account itself wrote it.
    pub from_me: bool,
    /// Its writer's address.
    pub sender: String,
    /// Its text, to be shown with an answer.
    pub text: String,
}

/// A request to send.
#[derive(Debug)]
pub struct NewOutgoing<'a> {
    pub client_id: i32,
    pub connection_id: Uuid,
    pub idempotency_key: Option<&'a str>,
    /// What the client asked for, as it came: another request under its key differs in this.
    pub request: &'a [u8],
    pub message_id: &'a str,
    /// An address.
    pub to: &'a str,
    pub content: &'a Content,
}

#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct Outgoing {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub connection_id: Uuid,
    #[diesel(sql_type = Binary)]
    pub request_hash: Vec<u8>,
    #[diesel(sql_type = Text)]
    pub message_id: String,
    #[diesel(sql_type = Text)]
    pub to: String,
    #[diesel(sql_type = Json)]
    content: serde_json::Value,
    #[diesel(sql_type = Text)]
    pub status: String,
    #[diesel(sql_type = Nullable<Text>)]
    pub error: Option<String>,
    /// Those that failed.
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    /// It may have been sent in one of them.
    #[diesel(sql_type = Bool)]
    pub unconfirmed: bool,
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
}

/// Which messages of a session are next.
#[derive(Debug)]
pub enum Next {
    Now(Box<Outgoing>),
    /// All wait, the first of them for so many seconds.
    In(f64),
    Nothing,
}

/// The columns of an [`Outgoing`].
macro_rules! columns {
    () => {
        r#"id, connection_id, request_hash, message_id, "to", content, status, error, attempts, unconfirmed,
           created_at"#
    };
}

impl Outgoing {
    /// Whether it is what this request asks for.
    pub fn is_of(&self, request: &[u8]) -> bool {
        self.request_hash == hash(request)
    }

    /// Writes a request down. Where its key was used before, returns what that request became.
    pub async fn insert(conn: &mut AsyncPgConnection, new: &NewOutgoing<'_>) -> QueryResult<Self> {
        let content = serde_json::to_value(new.content)
            .map_err(|error| Error::SerializationError(Box::new(error)))?;
        let inserted = Statement::new(concat!(
            r#"INSERT INTO whatsapp_outbox (id, client_id, connection_id, idempotency_key, request_hash,
                   message_id, "to", content)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING "#,
            columns!()
        ))
        .bind::<SqlUuid, _>(Uuid::now_v7())
        .bind::<Integer, _>(new.client_id)
        .bind::<SqlUuid, _>(new.connection_id)
        .bind::<Nullable<Text>, _>(new.idempotency_key)
        .bind::<Binary, _>(hash(new.request))
        .bind::<Text, _>(new.message_id)
        .bind::<Text, _>(new.to)
        .bind::<Json, _>(&content)
        .get_result(conn)
        .await;
        match (inserted, new.idempotency_key) {
            (Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)), Some(key)) => {
                let found = Self::of_key(conn, new.client_id, key).await?;
                found.ok_or(Error::NotFound)
            }
            (inserted, _) => inserted,
        }
    }

    /// What was sent under a client's key.
    pub async fn of_key(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        key: &str,
    ) -> QueryResult<Option<Self>> {
        Statement::new(concat!(
            "SELECT ",
            columns!(),
            " FROM whatsapp_outbox WHERE client_id = ? AND idempotency_key = ?"
        ))
        .bind::<Integer, _>(client_id)
        .bind::<Text, _>(key)
        .get_result(conn)
        .await
        .optional()
    }

    pub async fn find(conn: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Self>> {
        Statement::new(concat!(
            "SELECT ",
            columns!(),
            " FROM whatsapp_outbox WHERE id = ?"
        ))
        .bind::<SqlUuid, _>(id)
        .get_result(conn)
        .await
        .optional()
    }

    /// The connections that a gateway holds and that have something to send now.
    pub async fn waiting(conn: &mut AsyncPgConnection, gateway: Uuid) -> QueryResult<Vec<Uuid>> {
        let rows: Vec<Waiting> = Statement::new(
            "SELECT c.id FROM whatsapp_connections AS c WHERE c.owner = ? AND EXISTS (
                 SELECT FROM whatsapp_outbox AS o
                 WHERE o.connection_id = c.id AND o.status = 'queued' AND o.due_at <= now())",
        )
        .bind::<SqlUuid, _>(gateway)
        .load(conn)
        .await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// A session's next message: in order. One that waits holds up those to the same address, and no others.
    pub async fn next(conn: &mut AsyncPgConnection, connection_id: Uuid) -> QueryResult<Next> {
        #[derive(QueryableByName)]
        struct First {
            #[diesel(embed)]
            outgoing: Outgoing,
            #[diesel(sql_type = Double)]
            seconds: f64,
        }
        let first: Option<First> = Statement::new(concat!(
            "SELECT ",
            columns!(),
            r#", extract(epoch FROM due_at - now())::float8 AS seconds FROM whatsapp_outbox
             WHERE connection_id = ? AND status = 'queued' AND (due_at > now() OR "to" <> ALL (ARRAY(
                 SELECT "to" FROM whatsapp_outbox
                 WHERE connection_id = ? AND status = 'queued' AND due_at > now())))
             ORDER BY due_at > now(), CASE WHEN due_at > now() THEN due_at END, id LIMIT 1"#
        ))
        .bind::<SqlUuid, _>(connection_id)
        .bind::<SqlUuid, _>(connection_id)
        .get_result(conn)
        .await
        .optional()?;
        Ok(match first {
            Some(First { outgoing, seconds }) if seconds <= 0.0 => Next::Now(Box::new(outgoing)),
            Some(First { seconds, .. }) => Next::In(seconds),
            None => Next::Nothing,
        })
    }

    pub fn content(&self) -> Result<Content, serde_json::Error> {
        Content::deserialize(&self.content)
    }

    /// Whether nothing more will happen to it.
    pub fn is_settled(&self) -> bool {
        self.status != "queued"
    }

    /// WhatsApp has it. Adds the message to what the account sent, once; returns the new events' ids, to be
    /// rung.
    pub async fn sent(
        &self,
        conn: &mut AsyncPgConnection,
        lease: Lease,
        message: &NewMessage,
    ) -> QueryResult<Accepted> {
        conn.transaction(
            async |conn| match self.settle(conn, lease, "sent", None).await? {
                true => inbox::accept(conn, &[message]).await,
                false => Ok(Accepted::default()),
            },
        )
        .await
    }

    /// It can't be sent.
    pub async fn fail(
        &self,
        conn: &mut AsyncPgConnection,
        lease: Lease,
        trouble: &Trouble,
    ) -> QueryResult<()> {
        self.settle(conn, lease, "failed", Some(trouble)).await?;
        Ok(())
    }

    async fn settle(
        &self,
        conn: &mut AsyncPgConnection,
        lease: Lease,
        status: &str,
        trouble: Option<&Trouble>,
    ) -> QueryResult<bool> {
        Statement::new(
            "UPDATE whatsapp_outbox SET status = ?, error = ?, unconfirmed = unconfirmed OR ?,
                 settled_at = now()
             WHERE id = ? AND status = 'queued' AND (SELECT lease_stands(?, ?))",
        )
        .bind::<Text, _>(status)
        .bind::<Nullable<Text>, _>(trouble.map(|trouble| trouble.error.as_str()))
        .bind::<Bool, _>(trouble.is_some_and(|trouble| trouble.unconfirmed))
        .bind::<SqlUuid, _>(self.id)
        .bind::<SqlUuid, _>(lease.connection_id)
        .bind::<BigInt, _>(lease.epoch)
        .execute(conn)
        .await
        .map(|rows| rows > 0)
    }

    /// It is sent again after so many seconds.
    pub async fn postpone(
        &self,
        conn: &mut AsyncPgConnection,
        lease: Lease,
        seconds: f64,
        trouble: &Trouble,
    ) -> QueryResult<()> {
        Statement::new(
            "UPDATE whatsapp_outbox SET attempts = attempts + 1, error = ?,
                 unconfirmed = unconfirmed OR ?, due_at = now() + make_interval(secs => ?)
             WHERE id = ? AND status = 'queued' AND (SELECT lease_stands(?, ?))",
        )
        .bind::<Text, _>(trouble.error.as_str())
        .bind::<Bool, _>(trouble.unconfirmed)
        .bind::<Double, _>(seconds)
        .bind::<SqlUuid, _>(self.id)
        .bind::<SqlUuid, _>(lease.connection_id)
        .bind::<BigInt, _>(lease.epoch)
        .execute(conn)
        .await
        .map(drop)
    }

    /// It could not be tried: it is its turn again after so many seconds, and that was no attempt.
    pub async fn put_off(
        &self,
        conn: &mut AsyncPgConnection,
        lease: Lease,
        seconds: f64,
    ) -> QueryResult<()> {
        Statement::new(
            "UPDATE whatsapp_outbox SET due_at = now() + make_interval(secs => ?)
             WHERE id = ? AND status = 'queued' AND (SELECT lease_stands(?, ?))",
        )
        .bind::<Double, _>(seconds)
        .bind::<SqlUuid, _>(self.id)
        .bind::<SqlUuid, _>(lease.connection_id)
        .bind::<BigInt, _>(lease.epoch)
        .execute(conn)
        .await
        .map(drop)
    }

    /// Gives up what could not be sent for a day, and forgets what was settled so many days ago.
    pub async fn tidy(conn: &mut AsyncPgConnection, days: i32) -> QueryResult<()> {
        Statement::new(
            "UPDATE whatsapp_outbox SET status = 'failed', error = 'expired', settled_at = now()
             WHERE status = 'queued' AND created_at < now() - interval '1 day'",
        )
        .execute(conn)
        .await?;
        Statement::new(
            "DELETE FROM whatsapp_outbox WHERE settled_at < now() - make_interval(days => ?)",
        )
        .bind::<Integer, _>(days)
        .execute(conn)
        .await
        .map(drop)
    }
}

fn hash(request: &[u8]) -> Vec<u8> {
    Sha256::digest(request).to_vec()
}

/// Why an attempt failed.
#[derive(Debug)]
pub struct Trouble {
    pub error: String,
    /// The message may have reached WhatsApp.
    pub unconfirmed: bool,
}

#[derive(QueryableByName)]
struct Waiting {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

impl Target {
    /// A message that a connection received or sent in the chat with an address, by WhatsApp's id for it.
    pub async fn find(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        connection_id: Uuid,
        to: &str,
        message_id: &str,
    ) -> QueryResult<Option<Self>> {
        let rows: Vec<Candidate> = Statement::new(
            r#"SELECT event_type, chat, "from", "to", metadata->>'sender_pn' AS sender_pn,
                   metadata->>'sender_lid' AS sender_lid, left(content, 1024) AS content
               FROM whatsapp_messages
               WHERE connection_id = ? AND message_id = ? AND client_id = ?
                   AND event_type <> 'message.undecryptable' ORDER BY id"#,
        )
        .bind::<SqlUuid, _>(connection_id)
        .bind::<Text, _>(message_id)
        .bind::<Integer, _>(client_id)
        .load(conn)
        .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let names = names(conn, connection_id, to).await?;
        let found = rows.into_iter().find(|row| row.is_with(&names));
        Ok(found.map(|row| Self {
            message_id: message_id.to_owned(),
            from_me: row.is_from_me(),
            sender: match row.from.contains('@') {
                true => row.from,
                false => format!("{}@s.whatsapp.net", row.from),
            },
            text: row.content,
        }))
    }
}

/// The addresses that are one chat's: a person has a number and a LID, either of which a message may come under.
async fn names(
    conn: &mut AsyncPgConnection,
    connection_id: Uuid,
    to: &str,
) -> QueryResult<Vec<String>> {
    #[derive(QueryableByName)]
    struct Pair {
        #[diesel(sql_type = Text)]
        lid: String,
        #[diesel(sql_type = Text)]
        phone_number: String,
    }
    let Some(Jid { user, server }) = Jid::parse(to) else {
        return Ok(Vec::new());
    };
    let mut names = vec![comparable(to)];
    let (lid, number) = match server {
        "lid" => (Some(user), None),
        "s.whatsapp.net" => (None, Some(user)),
        _ => return Ok(names),
    };
    let pairs: Vec<Pair> = Statement::new(
        "SELECT lid, phone_number FROM protocol_lid_mappings
         WHERE device_id = (SELECT device_id FROM protocol_devices WHERE connection_id = ?)
             AND (lid = ? OR phone_number = ?)",
    )
    .bind::<SqlUuid, _>(connection_id)
    .bind::<Nullable<Text>, _>(lid)
    .bind::<Nullable<Text>, _>(number)
    .load(conn)
    .await?;
    for pair in pairs {
        names.push(comparable(&format!("{}@lid", pair.lid)));
        names.push(comparable(&pair.phone_number));
    }
    Ok(names)
}

/// Digits for who has a number, in the form in which numbers are compared; else the address without its device.
fn comparable(name: &str) -> String {
    match (name.parse::<Phone>(), Jid::parse(name)) {
        (Ok(phone), _) => phone.key(),
        (Err(_), Some(Jid { user, server })) => format!("{user}@{server}"),
        (Err(_), None) => name.to_owned(),
    }
}

/// A message that bears the id: it is unique in a chat only.
#[derive(QueryableByName)]
struct Candidate {
    #[diesel(sql_type = Text)]
    event_type: String,
    #[diesel(sql_type = Text)]
    chat: String,
    #[diesel(sql_type = Text)]
    from: String,
    #[diesel(sql_type = Text)]
    to: String,
    #[diesel(sql_type = Nullable<Text>)]
    sender_pn: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    sender_lid: Option<String>,
    #[diesel(sql_type = Text)]
    content: String,
}

impl Candidate {
    fn is_from_me(&self) -> bool {
        self.event_type == "message.sent"
    }

    /// Whether it was written in the chat of these names. In a chat of two, its other side is known by more
    /// than the chat's address.
    fn is_with(&self, names: &[String]) -> bool {
        let server = Jid::parse(&self.chat).map(|chat| chat.server);
        let is_direct = matches!(
            server,
            Some("s.whatsapp.net" | "c.us" | "lid" | "hosted" | "hosted.lid")
        );
        let other = match (is_direct, self.is_from_me()) {
            (false, _) => [None, None, None],
            (true, true) => [Some(&self.to), None, None],
            (true, false) => [
                Some(&self.from),
                self.sender_pn.as_ref(),
                self.sender_lid.as_ref(),
            ],
        };
        let mut known = std::iter::once(&self.chat).chain(other.into_iter().flatten());
        known.any(|name| names.contains(&comparable(name)))
    }
}
