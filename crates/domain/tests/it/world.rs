//! A client with a connection and a webhook, and messages for them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use domain::claim::Claimed;
use domain::client::Client;
use domain::connection::{Connection, Pairing};
use domain::event_type::EventType;
use domain::ids::{self, MessageKey};
use domain::inbox::{self, Accepted};
use domain::message::NewMessage;
use domain::phone::Phone;
use domain::record::{Outcome, Record};
use domain::schema::whatsapp_webhook_events as events;
use domain::statement::Statement;
use domain::webhook::{Changes, Webhook};
use testkit::Database;
use uuid::Uuid;

pub(crate) const NUMBER: &str = "5511988887777";

/// Dropped last, the database goes with it.
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) client: Client,
    pub(crate) connection: Connection,
    pub(crate) webhook: Webhook,
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = Database::create().await;
        let mut conn = database.connect().await;
        let client = Client::insert(&mut conn, "acme").await.unwrap();
        let connection = connect(&mut conn, client.id, NUMBER).await;
        let webhook = register(&mut conn, client.id, NUMBER, &["message"]).await;
        Self {
            database,
            client,
            connection,
            webhook,
        }
    }

    pub(crate) async fn conn(&self) -> AsyncPgConnection {
        self.database.connect().await
    }

    pub(crate) fn message(&self, message_id: &str) -> NewMessage {
        message(&self.connection, message_id)
    }

    /// Commits messages of these ids and returns their events' ids.
    pub(crate) async fn accept(&self, message_ids: &[&str]) -> Vec<Uuid> {
        let batch: Vec<NewMessage> = message_ids.iter().map(|id| self.message(id)).collect();
        accept(&mut self.conn().await, &batch).await.events
    }

    /// Commits one message and claims its event.
    pub(crate) async fn claimed(&self, message_id: &str, token: Uuid) -> Claimed {
        let ids = self.accept(&[message_id]).await;
        let mut conn = self.conn().await;
        let mut claimed = domain::claim::claim(&mut conn, &ids, token, 60.0)
            .await
            .unwrap();
        claimed.pop().unwrap()
    }

    pub(crate) async fn event(&self, id: Uuid) -> domain::event::Event {
        let mut conn = self.conn().await;
        domain::event::Event::find(&mut conn, self.client.id, id)
            .await
            .unwrap()
            .unwrap()
    }

    /// Waits until so many connections wait for a lock.
    pub(crate) async fn waiting(&self, connections: i64) {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = BigInt)]
            count: i64,
        }
        let mut conn = self.conn().await;
        testkit::eventually(Duration::from_secs(10), async || {
            let found: Count = Statement::new(
                "SELECT count(*) AS count FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .get_result(&mut conn)
            .await
            .unwrap();
            found.count == connections
        })
        .await;
    }

    /// Moves an event's due time into the past, as if its wait were over.
    pub(crate) async fn make_due(&self, id: Uuid) {
        diesel::update(events::table.find(id))
            .set(events::next_retry_at.eq(Utc::now() - chrono::TimeDelta::seconds(1)))
            .execute(&mut self.conn().await)
            .await
            .unwrap();
    }
}

pub(crate) async fn connect(conn: &mut AsyncPgConnection, client: i32, number: &str) -> Connection {
    let phone: Phone = number.parse().unwrap();
    Connection::connect(conn, client, Uuid::new_v4(), &phone, Pairing::Qr)
        .await
        .unwrap()
}

pub(crate) async fn register(
    conn: &mut AsyncPgConnection,
    client: i32,
    number: &str,
    event_types: &[&str],
) -> Webhook {
    let changes = Changes {
        webhook_url: Some("https://example.com/hook".to_owned()),
        event_types: Some(event_types.iter().map(ToString::to_string).collect()),
        ..Changes::default()
    };
    let phone: Phone = number.parse().unwrap();
    Webhook::register(conn, client, Uuid::now_v7(), &phone, &changes, b"sealed")
        .await
        .unwrap()
        .0
}

pub(crate) fn message(connection: &Connection, message_id: &str) -> NewMessage {
    let timestamp: DateTime<Utc> = DateTime::from_timestamp(Utc::now().timestamp(), 0).unwrap();
    let chat = "5511999999999@s.whatsapp.net";
    NewMessage {
        id: ids::message(MessageKey {
            connection: connection.id,
            chat,
            sender: chat,
            message_id,
            timestamp: DateTime::UNIX_EPOCH,
        }),
        client_id: connection.client_id,
        connection_id: connection.id,
        event_type: EventType::Message,
        message_id: message_id.to_owned(),
        chat: chat.to_owned(),
        from: "5511999999999".to_owned(),
        to: connection.phone_number.clone(),
        message_type: "text".to_owned(),
        content: format!("content of {message_id}"),
        metadata: r#"{"v":1}"#.to_owned(),
        timestamp,
        raw: None,
    }
}

pub(crate) async fn accept(conn: &mut AsyncPgConnection, batch: &[NewMessage]) -> Accepted {
    let batch: Vec<&NewMessage> = batch.iter().collect();
    inbox::accept(conn, &batch).await.unwrap()
}

pub(crate) fn record(claimed: &Claimed, token: Uuid, outcome: Outcome) -> Record {
    let delivered = outcome == Outcome::Delivered;
    Record {
        attempt_id: Uuid::now_v7(),
        event_id: claimed.id,
        client_id: claimed.client_id,
        webhook_id: claimed.webhook_id,
        token,
        attempt: claimed.attempt_count + 1,
        batch_id: None,
        probe: claimed.probe,
        started_at: Utc::now(),
        duration_ms: 12,
        http_status: Some(if delivered { 200 } else { 500 }),
        error_class: (!delivered).then_some("http_status"),
        error: (!delivered).then(|| "answered 500".to_owned()),
        response: Some("body".to_owned()),
        outcome,
    }
}
