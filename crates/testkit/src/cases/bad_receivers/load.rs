//! Numbers with a webhook each, and messages for them as a gateway commits them: in order, together with
//! what gathered while the last commit ran, again and again until PostgreSQL has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chrono::{DateTime, SubsecRound, Utc};
use diesel_async::AsyncPgConnection;
use domain::client::Client;
use domain::connection::{Connection, Pairing};
use domain::event_type::EventType;
use domain::ids::{self, MessageKey};
use domain::inbox;
use domain::keyring::Keyring;
use domain::message::NewMessage;
use domain::phone::Phone;
use domain::token;
use domain::webhook::{self, Changes, Webhook};
use queue::Doorbell;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runtime::config::DatabaseConfig;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// People who write to one number.
const CHATS: usize = 8;
/// Messages of one commit.
const BATCH: usize = 200;
/// Enough for an event that meets every fault there is.
const ATTEMPTS: i32 = 10;
const COMMIT: Duration = Duration::from_secs(5);
/// For so long PostgreSQL may be away.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
const TICK: Duration = Duration::from_millis(1);

/// A number and its webhook.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) webhook: Uuid,
    connection: Connection,
}

/// How a webhook is set up.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) url: String,
    pub(super) ordered: bool,
}

/// Registers webhooks, for a number each.
pub(super) async fn link(
    database_url: &str,
    keyring: &Keyring,
    wanted: &[Wanted],
) -> anyhow::Result<Vec<Line>> {
    let mut conn = connect(database_url).await?;
    let client = Client::insert(&mut conn, "storm").await?;
    let mut lines = Vec::new();
    for (wanted, number) in wanted.iter().zip(0..) {
        let phone: Phone = format!("1555{number:07}").parse()?;
        let user = Uuid::new_v4();
        let connection =
            Connection::connect(&mut conn, client.id, user, &phone, Pairing::Qr).await?;
        let id = Uuid::now_v7();
        let secret = webhook::seal_secret(keyring, id, &token::new_signing_secret());
        let changes = Changes {
            webhook_url: Some(wanted.url.clone()),
            max_retries: Some(ATTEMPTS),
            ordered: Some(wanted.ordered),
            ..Changes::default()
        };
        Webhook::register(&mut conn, client.id, id, &phone, &changes, &secret).await?;
        lines.push(Line {
            webhook: id,
            connection,
        });
    }
    Ok(lines)
}

/// An event that PostgreSQL has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) event: Uuid,
    /// The number of its webhook.
    pub(super) line: usize,
    pub(super) chat: usize,
    /// When PostgreSQL had said so.
    pub(super) at: DateTime<Utc>,
}

/// Messages at a steady rate, in the background.
pub(super) struct Writing {
    enough: Arc<AtomicBool>,
    task: JoinHandle<anyhow::Result<Vec<Committed>>>,
}

impl Writing {
    pub(super) fn start(
        database_url: &str,
        doorbell: Doorbell,
        lines: Vec<Line>,
        per_second: f64,
    ) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let mut writer = Writer {
            database_url: database_url.to_owned(),
            connection: None,
            doorbell,
            lines,
            random: StdRng::from_rng(&mut rand::rng()),
            written: 0,
            committed: Vec::new(),
        };
        let told = Arc::clone(&enough);
        let task = tokio::spawn(async move {
            let start = Instant::now();
            while !told.load(Ordering::SeqCst) {
                let due = (start.elapsed().as_secs_f64() * per_second) as usize;
                match due - writer.written {
                    0 => sleep(TICK).await,
                    some => writer.write(some.min(BATCH)).await?,
                }
            }
            Ok(writer.committed)
        });
        Self { enough, task }
    }

    /// Ends it, and returns everything that was committed, in the order of commit.
    pub(super) async fn end(self) -> anyhow::Result<Vec<Committed>> {
        self.enough.store(true, Ordering::SeqCst);
        self.task.await?
    }
}

struct Writer {
    database_url: String,
    connection: Option<AsyncPgConnection>,
    doorbell: Doorbell,
    lines: Vec<Line>,
    random: StdRng,
    written: usize,
    committed: Vec<Committed>,
}

impl Writer {
    async fn write(&mut self, count: usize) -> anyhow::Result<()> {
        let mut messages = Vec::with_capacity(count);
        let mut made = Vec::with_capacity(count);
        for _ in 0..count {
            let line = self.random.random_range(0..self.lines.len());
            let chat = self.random.random_range(0..CHATS);
            self.written += 1;
            let to = &self.lines[line];
            let message = message(&to.connection, chat, self.written);
            let event = ids::event(EventType::Message, message.id, to.webhook);
            made.push((event, line, chat));
            messages.push(message);
        }
        self.commit(&messages).await?;
        let at = Utc::now();
        let events: Vec<Uuid> = made.iter().map(|(event, ..)| *event).collect();
        self.committed
            .extend(made.into_iter().map(|(event, line, chat)| Committed {
                event,
                line,
                chat,
                at,
            }));
        // A ring may be lost: that is what this is about.
        let _ = self.doorbell.ring_events(&events).await;
        Ok(())
    }

    /// What is in there already, since only the answer was lost, adds nothing.
    async fn commit(&mut self, messages: &[NewMessage]) -> anyhow::Result<()> {
        let batch: Vec<_> = messages.iter().collect();
        let start = Instant::now();
        loop {
            match timeout(COMMIT, self.try_commit(&batch)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) if start.elapsed() > PATIENCE => bail!("PostgreSQL takes no commit"),
                Ok(Err(_)) | Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn try_commit(&mut self, batch: &[&NewMessage]) -> anyhow::Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.database_url).await?,
        };
        inbox::accept(&mut connection, batch).await?;
        self.connection = Some(connection);
        Ok(())
    }
}

async fn connect(url: &str) -> anyhow::Result<AsyncPgConnection> {
    let connection = runtime::postgres::connect(&DatabaseConfig::from_url(url)?).await;
    connection.context("PostgreSQL")
}

fn message(connection: &Connection, chat: usize, number: usize) -> NewMessage {
    let timestamp = Utc::now().trunc_subsecs(0);
    let message_id = format!("3EB0{number:020X}");
    let from = format!("4930{chat:07}");
    let chat = format!("{from}@s.whatsapp.net");
    NewMessage {
        id: ids::message(MessageKey {
            connection: connection.id,
            chat: &chat,
            sender: &chat,
            message_id: &message_id,
            timestamp,
        }),
        client_id: connection.client_id,
        connection_id: connection.id,
        event_type: EventType::Message,
        message_id,
        chat,
        from,
        to: connection.phone_number.clone(),
        message_type: "text".to_owned(),
        content: format!("{number}: é o recado número {number}"),
        metadata: r#"{"v":1}"#.to_owned(),
        timestamp,
        raw: None,
        media: None,
    }
}
