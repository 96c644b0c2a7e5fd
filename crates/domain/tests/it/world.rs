//! A client with a connection and a webhook, and messages for them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Double, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use domain::claim::Claimed;
use domain::client::Client;
use domain::connection::{Connection, Pairing};
use domain::event::{Event, Filter, List};
use domain::event_type::EventType;
use domain::ids::{self, MessageKey};
use domain::inbox::{self, Accepted};
use domain::lease::Lease;
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
    /// The time that the messages' ids say.
    pub(crate) at: DateTime<Utc>,
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
            at: DateTime::UNIX_EPOCH,
        }
    }

    pub(crate) async fn conn(&self) -> AsyncPgConnection {
        self.database.connect().await
    }

    pub(crate) fn message(&self, message_id: &str) -> NewMessage {
        let mut message = message(&self.connection, message_id);
        message.id = ids::message(MessageKey {
            connection: self.connection.id,
            chat: &message.chat,
            sender: &message.chat,
            message_id,
            timestamp: self.at,
        });
        message
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

    pub(crate) async fn event(&self, id: Uuid) -> Event {
        let mut conn = self.conn().await;
        Event::find(&mut conn, self.client.id, id)
            .await
            .unwrap()
            .unwrap()
    }

    /// Waits until so many connections wait for a lock.
    pub(crate) async fn waiting(&self, connections: i64) {
        let mut conn = self.conn().await;
        testkit::eventually(Duration::from_secs(10), async || {
            let waiting = "SELECT count(*) AS count FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'";
            count(&mut conn, waiting).await == connections
        })
        .await;
    }

    /// Runs a statement of the test's own.
    pub(crate) async fn sql(&self, text: &str) {
        self.conn().await.batch_execute(text).await.unwrap();
    }

    /// What a `SELECT … AS count` answers.
    pub(crate) async fn count(&self, text: &'static str) -> i64 {
        count(&mut self.conn().await, text).await
    }

    /// The webhook's circuit and its look at what is parked.
    pub(crate) async fn circuit(&self) -> Circuit {
        Statement::new(
            "SELECT status, is_active, failure_count, probes, release_step, transition,
                 extract(epoch FROM look_at - now())::float8 AS look_in,
                 extract(epoch FROM now() - opened_at)::float8 AS open_for
             FROM whatsapp_webhooks WHERE id = ?",
        )
        .bind::<SqlUuid, _>(self.webhook.id)
        .get_result(&mut self.conn().await)
        .await
        .unwrap()
    }

    /// Commits messages of these ids, claims their events, and lets each attempt end as `outcome`.
    pub(crate) async fn attempt(&self, message_ids: &[&str], outcome: Outcome) -> Vec<Uuid> {
        let token = Uuid::new_v4();
        let mut ids = Vec::new();
        for name in message_ids {
            let claimed = self.claimed(name, token).await;
            ids.push(claimed.id);
            let attempt = record(&claimed, token, outcome.clone());
            domain::record::record(&mut self.conn().await, &[attempt])
                .await
                .unwrap();
        }
        ids
    }

    /// Lets five deliveries in five chats fail for good, which opens the circuit.
    pub(crate) async fn open_circuit(&self) {
        let mut conn = self.conn().await;
        let batch: Vec<NewMessage> = (1..=5)
            .map(|n| NewMessage {
                chat: format!("failing {n}"),
                ..self.message(&format!("F{n}"))
            })
            .collect();
        let (ids, token) = (accept(&mut conn, &batch).await.events, Uuid::new_v4());
        let claimed = domain::claim::claim(&mut conn, &ids, token, 60.0)
            .await
            .unwrap();
        let dead = Outcome::Dead {
            reason: "a failure that counts".to_owned(),
            gone: false,
        };
        let failures: Vec<Record> = claimed
            .iter()
            .map(|claimed| record(claimed, token, dead.clone()))
            .collect();
        domain::record::record(&mut conn, &failures).await.unwrap();
        assert_eq!(self.circuit().await.status, "failed");
    }

    /// As if the pause until the next look at what is parked were over.
    pub(crate) async fn look_now(&self) {
        self.sql("UPDATE whatsapp_webhooks SET look_at = now() - interval '1 s' WHERE look_at IS NOT NULL")
            .await;
    }

    /// As if every wait of pending events were over, that of claims too.
    pub(crate) async fn all_due(&self) {
        self.sql(
            "UPDATE whatsapp_webhook_events SET next_retry_at = now() - interval '1 s', claimed_until = NULL
             WHERE status = 'pending' AND next_retry_at IS NOT NULL",
        )
        .await;
    }

    /// Commits so many events for the webhook which are parked for that reason, their message ids P1, P2 …
    /// The webhook's look is not set.
    pub(crate) async fn seed_parked(&self, count: usize, reason: &str) {
        self.sql(&format!(
            r#"INSERT INTO whatsapp_webhook_events (id, client_id, webhook_id, source_id, event_type,
                   message_id, chat, "from", "to", message_type, content, metadata, "timestamp", parked)
               SELECT gen_random_uuid(), {}, '{}', gen_random_uuid(), 'message',
                   'P' || n, 'chat', '', '', 'text', '', '{{}}', now(), '{reason}'
               FROM generate_series(1, {count}) AS n"#,
            self.client.id, self.webhook.id
        ))
        .await;
    }

    /// The pending events that nobody will ever look at: there must be none.
    pub(crate) async fn stranded(&self) -> i64 {
        stranded(&mut self.conn().await).await
    }

    /// Moves an event's due time into the past, as if its wait were over.
    pub(crate) async fn make_due(&self, id: Uuid) {
        set_due(&mut self.conn().await, id).await;
    }
}

pub(crate) async fn set_due(conn: &mut AsyncPgConnection, id: Uuid) {
    diesel::update(events::table.find(id))
        .set((
            events::next_retry_at.eq(Utc::now() - chrono::TimeDelta::seconds(1)),
            events::claimed_until.eq(None::<DateTime<Utc>>),
        ))
        .execute(conn)
        .await
        .unwrap();
}

/// See [`World::stranded`].
pub(crate) async fn stranded(conn: &mut AsyncPgConnection) -> i64 {
    let parked = "SELECT count(*) AS count FROM whatsapp_webhook_events e
        JOIN whatsapp_webhooks w ON w.id = e.webhook_id
        WHERE e.status = 'pending' AND e.next_retry_at IS NULL
          AND (e.parked IS NULL OR (w.look_at IS NULL AND (w.is_active OR w.deleted_at IS NOT NULL)))";
    count(conn, parked).await
}

/// What a webhook's row says of its circuit.
#[derive(Debug, QueryableByName)]
pub(crate) struct Circuit {
    #[diesel(sql_type = Text)]
    pub(crate) status: String,
    #[diesel(sql_type = Bool)]
    pub(crate) is_active: bool,
    #[diesel(sql_type = Integer)]
    pub(crate) failure_count: i32,
    #[diesel(sql_type = Integer)]
    pub(crate) probes: i32,
    #[diesel(sql_type = Integer)]
    pub(crate) release_step: i32,
    #[diesel(sql_type = BigInt)]
    pub(crate) transition: i64,
    /// Seconds until the next look at what is parked.
    #[diesel(sql_type = Nullable<Double>)]
    pub(crate) look_in: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    pub(crate) open_for: Option<f64>,
}

pub(crate) async fn count(conn: &mut AsyncPgConnection, text: &'static str) -> i64 {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }
    let found: Count = Statement::new(text).get_result(conn).await.unwrap();
    found.count
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
        media: None,
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
        leave_alone: 0.0,
        outcome,
    }
}

/// The hold on a connection that nobody has claimed yet.
pub(crate) fn lease(connection_id: Uuid) -> Lease {
    Lease {
        connection_id,
        epoch: 0,
    }
}

/// A page of all of a webhook's events.
pub(crate) async fn newest(
    conn: &mut AsyncPgConnection,
    webhook: &Webhook,
    limit: i64,
    offset: i64,
) -> Vec<Event> {
    let all = Filter::default();
    let list = List::new(conn, webhook.client_id, webhook.id, &all, None);
    let list = list.await.unwrap();
    list.page(conn, limit, offset).await.unwrap()
}
