//! A client with webhooks at the receiver, and messages for them: what a gateway would have committed.

use chrono::{SubsecRound, Utc};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use domain::client::Client;
use domain::connection::{Connection, Pairing};
use domain::event_type::EventType;
use domain::ids::{self, MessageKey};
use domain::inbox;
use domain::keyring::Keyring;
use domain::message::NewMessage;
use domain::partition;
use domain::phone::Phone;
use domain::token;
use domain::webhook::{self, Changes, Webhook};
use uuid::Uuid;

/// For `ENCRYPTION_KEYS`.
pub(crate) const KEYS: &str = "bench:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// Makes a delivery's body about 315 bytes long.
pub(crate) const CONTENT: &str = "Bom dia!";
pub(crate) const CONTACT: &str = "5511999999999";
pub(crate) const METADATA: &str = r#"{"v":1}"#;
const CHAT: &str = "5511999999999@s.whatsapp.net";
/// Messages of one commit.
const BATCH: usize = 1000;

/// The numbers of one client, each with a webhook.
pub(crate) struct Numbers {
    pub(crate) connections: Vec<Connection>,
    /// Messages so far.
    written: usize,
}

impl Numbers {
    /// Links a number for each URL.
    pub(crate) async fn link(
        conn: &mut AsyncPgConnection,
        urls: &[String],
    ) -> anyhow::Result<Self> {
        // As the dispatcher does at its start; else it would have to move all that is seeded.
        partition::maintain(conn, Utc::now(), None).await?;
        let keyring = Keyring::parse(KEYS)?;
        let client = Client::insert(conn, "bench").await?;
        conn.batch_execute("BEGIN").await?;
        let mut connections = Vec::with_capacity(urls.len());
        for (url, number) in urls.iter().zip(0..) {
            connections.push(link(conn, &keyring, client.id, number, url).await?);
        }
        conn.batch_execute("COMMIT").await?;
        Ok(Self {
            connections,
            written: 0,
        })
    }

    /// The next message; the numbers take turns.
    pub(crate) fn message(&mut self) -> NewMessage {
        let connection = &self.connections[self.written % self.connections.len()];
        self.written += 1;
        message(connection, self.written)
    }

    /// Commits so many messages and returns their events, in the order of commit.
    pub(crate) async fn backlog(
        &mut self,
        conn: &mut AsyncPgConnection,
        count: usize,
    ) -> anyhow::Result<Vec<Uuid>> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            let size = BATCH.min(count - events.len());
            let messages: Vec<_> = (0..size).map(|_| self.message()).collect();
            let batch: Vec<_> = messages.iter().collect();
            let accepted = inbox::accept(conn, &batch).await?;
            anyhow::ensure!(accepted.events.len() == size, "a message without an event");
            events.extend(accepted.events);
        }
        // Else the server would do this in the middle of what is measured, or have no idea of the tables.
        conn.batch_execute("VACUUM ANALYZE").await?;
        conn.batch_execute("CHECKPOINT").await?;
        Ok(events)
    }
}

async fn link(
    conn: &mut AsyncPgConnection,
    keyring: &Keyring,
    client: i32,
    number: u32,
    url: &str,
) -> anyhow::Result<Connection> {
    let phone: Phone = format!("1555{number:07}").parse()?;
    let user = Uuid::new_v4();
    let connection = Connection::connect(conn, client, user, &phone, Pairing::Qr).await?;
    let id = Uuid::now_v7();
    let secret = webhook::seal_secret(keyring, id, &token::new_signing_secret());
    let changes = Changes {
        webhook_url: Some(url.to_owned()),
        ..Changes::default()
    };
    Webhook::register(conn, client, id, &phone, &changes, &secret).await?;
    Ok(connection)
}

fn message(connection: &Connection, number: usize) -> NewMessage {
    let timestamp = Utc::now().trunc_subsecs(0);
    let message_id = message_id(number);
    NewMessage {
        id: ids::message(MessageKey {
            connection: connection.id,
            chat: CHAT,
            sender: CHAT,
            message_id: &message_id,
            timestamp,
        }),
        client_id: connection.client_id,
        connection_id: connection.id,
        event_type: EventType::Message,
        message_id,
        chat: CHAT.to_owned(),
        from: CONTACT.to_owned(),
        to: connection.phone_number.clone(),
        message_type: "text".to_owned(),
        content: CONTENT.to_owned(),
        metadata: METADATA.to_owned(),
        timestamp,
        raw: None,
        media: None,
    }
}

/// Of the message with that number.
pub(crate) fn message_id(number: usize) -> String {
    format!("3EB0{number:020X}")
}
