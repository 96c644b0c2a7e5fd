//! A client, webhooks at a receiver, messages for them, and a dispatcher.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::pooled_connection::deadpool::Object;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use dispatcher::Dispatcher;
use dispatcher::config::{Config, SendingConfig};
use domain::address::AddressPolicy;
use domain::attempt::Attempt;
use domain::client::Client;
use domain::connection::{Connection, Pairing};
use domain::event::Event;
use domain::event_type::EventType;
use domain::ids::{self, MessageKey};
use domain::inbox;
use domain::keyring::Keyring;
use domain::media::File;
use domain::message::NewMessage;
use domain::phone::Phone;
use domain::schema::{
    clients, whatsapp_dead_letters as dead_letters, whatsapp_delivery_attempts as attempts,
    whatsapp_webhook_events as events,
};
use domain::token;
use domain::webhook::{self, Changes, Webhook};
use media::HostConfig;
use queue::Doorbell;
use runtime::config::OpsConfig;
use runtime::postgres;
use runtime::shutdown::Shutdown;
use runtime::telemetry;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use testkit::{Database, Program, Receiver, RedisDatabase, eventually};
use uuid::Uuid;

pub(crate) const KEYS: &str = "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// For what should take some milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) database: Database,
    pool: postgres::Pool,
    doorbell: Doorbell,
    pub(crate) redis: RedisDatabase,
    pub(crate) receiver: Receiver,
    pub(crate) client: Client,
    hooks: AtomicU32,
}

/// A webhook and the connection whose messages it gets.
pub(crate) struct Hook {
    pub(crate) id: Uuid,
    pub(crate) secret: SecretString,
    pub(crate) path: String,
    pub(crate) connection: Connection,
}

/// A dispatcher in this process.
pub(crate) struct Running {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) shutdown: Shutdown,
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = Database::create().await;
        Self::on(database).await
    }

    pub(crate) async fn on(database: Database) -> Self {
        let client = Client::insert(&mut database.connect().await, "acme")
            .await
            .unwrap();
        let redis = RedisDatabase::acquire().await;
        Self {
            pool: database.pool(),
            doorbell: Doorbell::new(redis.pool()),
            database,
            redis,
            receiver: Receiver::start().await,
            client,
            hooks: AtomicU32::new(0),
        }
    }

    pub(crate) async fn conn(&self) -> Object<AsyncPgConnection> {
        self.pool.get().await.unwrap()
    }

    /// A webhook at a path of the receiver, for a number of its own, with three attempts.
    pub(crate) async fn hook(&self, path: &str) -> Hook {
        self.hook_at(&self.receiver.url(path)).await
    }

    pub(crate) async fn hook_at(&self, url: &str) -> Hook {
        let number = self.hooks.fetch_add(1, Ordering::Relaxed);
        let phone: Phone = format!("1555{number:07}").parse().unwrap();
        let mut conn = self.conn().await;
        let connection = Connection::connect(
            &mut conn,
            self.client.id,
            Uuid::new_v4(),
            &phone,
            Pairing::Qr,
        )
        .await
        .unwrap();
        let (id, secret) = (Uuid::now_v7(), token::new_signing_secret());
        let changes = Changes {
            webhook_url: Some(url.to_owned()),
            ..Changes::default()
        };
        let sealed = webhook::seal_secret(&keyring(), id, &secret);
        Webhook::register(&mut conn, self.client.id, id, &phone, &changes, &sealed)
            .await
            .unwrap();
        let path = format!("/{}", url.splitn(4, '/').nth(3).unwrap_or_default());
        Hook {
            id,
            secret,
            path,
            connection,
        }
    }

    /// Commits so many messages and returns their events' ids; nobody is rung.
    pub(crate) async fn commit(&self, hook: &Hook, count: usize) -> Vec<Uuid> {
        let messages: Vec<NewMessage> = (0..count).map(|_| message(&hook.connection)).collect();
        let batch: Vec<&NewMessage> = messages.iter().collect();
        let accepted = inbox::accept(&mut *self.conn().await, &batch)
            .await
            .unwrap();
        accepted.events
    }

    /// Commits a message with each of these files and returns their events' ids; nobody is rung.
    pub(crate) async fn commit_files(&self, hook: &Hook, files: &[&File]) -> Vec<Uuid> {
        let messages: Vec<NewMessage> = files
            .iter()
            .map(|file| with_file(message(&hook.connection), file))
            .collect();
        let batch: Vec<&NewMessage> = messages.iter().collect();
        let accepted = inbox::accept(&mut *self.conn().await, &batch).await;
        accepted.unwrap().events
    }

    /// The same, and rings.
    pub(crate) async fn send_files(&self, hook: &Hook, files: &[&File]) -> Vec<Uuid> {
        let ids = self.commit_files(hook, files).await;
        self.doorbell.ring_events(&ids).await.unwrap();
        ids
    }

    /// Commits one message of a chat, and rings.
    pub(crate) async fn write(&self, hook: &Hook, chat: &str, content: &str) -> Vec<Uuid> {
        let mut message = message(&hook.connection);
        message.chat = chat.to_owned();
        message.content = content.to_owned();
        let accepted = inbox::accept(&mut *self.conn().await, &[&message])
            .await
            .unwrap();
        self.doorbell.ring_events(&accepted.events).await.unwrap();
        accepted.events
    }

    /// Waits until the event is parked for that reason.
    pub(crate) async fn parked(&self, id: Uuid, reason: &str) {
        eventually(SOON, async || match self.event(id).await {
            event if event.parked.as_deref() == Some(reason) => Ok(()),
            event => Err(format!("{event:?}")),
        })
        .await;
    }

    /// Lets the next probe of an open circuit go out at once.
    pub(crate) async fn probe_now(&self, hook: &Hook) {
        let sql = format!(
            "UPDATE whatsapp_webhooks SET look_at = now() WHERE id = '{}'",
            hook.id
        );
        self.conn().await.batch_execute(&sql).await.unwrap();
    }

    /// The probes that are on record.
    pub(crate) async fn probes(&self, hook: &Hook) -> Vec<Attempt> {
        attempts::table
            .filter(attempts::webhook_id.eq(hook.id))
            .filter(attempts::probe)
            .select(Attempt::as_select())
            .load(&mut *self.conn().await)
            .await
            .unwrap()
    }

    /// Deliveries a second, over all webhooks of the client.
    pub(crate) async fn limit_client(&self, per_second: i32) {
        diesel::update(clients::table.find(self.client.id))
            .set(clients::rate_limit_per_second.eq(per_second))
            .execute(&mut *self.conn().await)
            .await
            .unwrap();
    }

    /// Commits messages and rings, as a gateway does.
    pub(crate) async fn send(&self, hook: &Hook, count: usize) -> Vec<Uuid> {
        let ids = self.commit(hook, count).await;
        self.doorbell.ring_events(&ids).await.unwrap();
        ids
    }

    /// Moves events' due times into the past, as if their wait were over.
    pub(crate) async fn make_due(&self, ids: &[Uuid]) {
        diesel::update(events::table.filter(events::id.eq_any(ids)))
            .set((
                events::next_retry_at.eq(Utc::now() - TimeDelta::seconds(1)),
                events::claimed_until.eq(None::<DateTime<Utc>>),
            ))
            .execute(&mut *self.conn().await)
            .await
            .unwrap();
    }

    pub(crate) async fn event(&self, id: Uuid) -> Event {
        let mut conn = self.conn().await;
        Event::find(&mut conn, self.client.id, id)
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn attempts(&self, id: Uuid) -> Vec<Attempt> {
        let mut conn = self.conn().await;
        Attempt::list(&mut conn, self.client.id, id).await.unwrap()
    }

    pub(crate) async fn webhook(&self, hook: &Hook) -> Webhook {
        let mut conn = self.conn().await;
        Webhook::find(&mut conn, self.client.id, hook.id)
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn change(&self, hook: &Hook, changes: &Changes) {
        let mut conn = self.conn().await;
        Webhook::update(&mut conn, self.client.id, hook.id, changes)
            .await
            .unwrap()
            .unwrap();
    }

    pub(crate) async fn dead_letter(&self, id: Uuid) -> Option<String> {
        dead_letters::table
            .find(id)
            .select(dead_letters::reason)
            .first(&mut *self.conn().await)
            .await
            .optional()
            .unwrap()
    }

    /// Waits until so many attempts at the event are on record, and returns the event.
    pub(crate) async fn attempted(&self, id: Uuid, times: i32) -> Event {
        eventually(SOON, async || {
            let event = self.event(id).await;
            match event.attempt_count == times {
                true => Ok(event),
                false => Err(format!("{event:?}")),
            }
        })
        .await
    }

    /// Waits until all of these events have that status.
    pub(crate) async fn all(&self, ids: &[Uuid], status: &str) {
        let mut conn = self.conn().await;
        eventually(Duration::from_secs(30), async || {
            let others: i64 = events::table
                .filter(events::id.eq_any(ids))
                .filter(events::status.ne(status))
                .count()
                .get_result(&mut conn)
                .await
                .unwrap();
            match others {
                0 => Ok(()),
                _ => Err(format!("{others} of {} are not {status}", ids.len())),
            }
        })
        .await;
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            database: self.database.config(),
            redis: self.redis.config(),
            ops: OpsConfig {
                bind: Ipv4Addr::LOCALHOST.into(),
                port: 0,
            },
            keyring: keyring(),
            sending: SendingConfig {
                timeout: Duration::from_secs(10),
                addresses: AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]),
                https_only: false,
            },
            media: HostConfig {
                url: "http://127.0.0.1:9".parse().unwrap(),
                timeout: Duration::from_secs(10),
            },
            concurrency: 64,
            retention_days: None,
        }
    }

    pub(crate) async fn dispatcher(&self) -> Running {
        start(self.config()).await
    }

    pub(crate) async fn impatient_dispatcher(&self) -> Running {
        let mut config = self.config();
        config.sending.timeout = Duration::from_millis(300);
        start(config).await
    }

    /// The real binary.
    pub(crate) fn program(&self) -> Program {
        Program::service("recado-dispatcher")
            .env("DATABASE_URL", self.database.url())
            .env("REDIS_URL", self.redis.url())
            .env("ENCRYPTION_KEYS", KEYS)
    }
}

impl Hook {
    pub(crate) fn secret(&self) -> &str {
        self.secret.expose_secret()
    }
}

impl Running {
    /// Stops softly and waits for the end.
    pub(crate) async fn stop(self) {
        self.shutdown.soft().cancel();
        self.dispatcher.finished().await.unwrap();
        assert!(self.shutdown.finish().await);
        self.shutdown.hard().cancel();
    }
}

pub(crate) async fn start(config: Config) -> Running {
    let shutdown = Shutdown::new(Duration::from_secs(25));
    let dispatcher = dispatcher::start(config, telemetry::detached_metrics(), &shutdown)
        .await
        .unwrap();
    Running {
        dispatcher,
        shutdown,
    }
}

pub(crate) fn keyring() -> Keyring {
    Keyring::parse(KEYS).unwrap()
}

fn message(connection: &Connection) -> NewMessage {
    let timestamp: DateTime<Utc> = DateTime::from_timestamp(Utc::now().timestamp(), 0).unwrap();
    let chat = "5511999999999@s.whatsapp.net";
    let message_id = format!("3EB0{}", Uuid::new_v4().simple());
    NewMessage {
        id: ids::message(MessageKey {
            connection: connection.id,
            chat,
            sender: chat,
            message_id: &message_id,
            timestamp,
        }),
        client_id: connection.client_id,
        connection_id: connection.id,
        event_type: EventType::Message,
        content: format!("Olá, {message_id}!"),
        message_id,
        chat: chat.to_owned(),
        from: "5511999999999".to_owned(),
        to: connection.phone_number.clone(),
        message_type: "text".to_owned(),
        metadata: r#"{"v":1,"chat":"5511999999999@s.whatsapp.net"}"#.to_owned(),
        timestamp,
        raw: None,
        media: None,
    }
}

/// The message, come with a file.
fn with_file(message: NewMessage, file: &File) -> NewMessage {
    let said = json!({
        "v": 1,
        "chat": message.chat,
        "media": {"kind": file.kind, "size": file.size, "id": message.id},
    });
    NewMessage {
        message_type: file.kind.as_str().to_owned(),
        metadata: said.to_string(),
        media: Some(file.seal(&keyring(), message.id)),
        ..message
    }
}
