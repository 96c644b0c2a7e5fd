//! What PostgreSQL knows, asked without any of Recado's own queries.

use anyhow::Context;
use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use runtime::config::DatabaseConfig;
use uuid::Uuid;

/// A row of `whatsapp_messages`.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Message {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = Text)]
    pub message_id: String,
    #[diesel(sql_type = Text)]
    pub event_type: String,
    #[diesel(sql_type = Text)]
    pub to: String,
    #[diesel(sql_type = Text)]
    pub content: String,
    /// Why it could not be read, if so.
    #[diesel(sql_type = Nullable<Text>)]
    pub reason: Option<String>,
}

/// A row of `whatsapp_webhook_events`.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Event {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub source_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub webhook_id: Uuid,
    #[diesel(sql_type = Text)]
    pub event_type: String,
    #[diesel(sql_type = Text)]
    pub message_id: String,
    #[diesel(sql_type = Text)]
    pub status: String,
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
}

/// A row of `whatsapp_delivery_attempts`.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Attempt {
    #[diesel(sql_type = SqlUuid)]
    pub event_id: Uuid,
    #[diesel(sql_type = Nullable<Integer>)]
    pub http_status: Option<i32>,
    #[diesel(sql_type = Bool)]
    pub superseded: bool,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// A connection of one's own.
pub struct Records {
    connection: AsyncPgConnection,
}

impl Records {
    pub(super) async fn connect(url: &str) -> anyhow::Result<Self> {
        let config = DatabaseConfig::from_url(url)?;
        let connection = runtime::postgres::connect(&config).await;
        Ok(Self {
            connection: connection.context("PostgreSQL")?,
        })
    }

    /// Every message that was committed.
    pub async fn messages(&mut self) -> anyhow::Result<Vec<Message>> {
        let query = r#"SELECT id, message_id, event_type, "to", content,
                           CASE event_type WHEN 'message.undecryptable' THEN metadata->>'reason' END AS reason
                       FROM whatsapp_messages"#;
        Ok(sql_query(query).load(&mut self.connection).await?)
    }

    /// Every event.
    pub async fn events(&mut self) -> anyhow::Result<Vec<Event>> {
        let query = "SELECT id, source_id, webhook_id, event_type, message_id, status, created_at
                     FROM whatsapp_webhook_events";
        Ok(sql_query(query).load(&mut self.connection).await?)
    }

    /// Every attempt that was recorded.
    pub async fn attempts(&mut self) -> anyhow::Result<Vec<Attempt>> {
        let query = "SELECT event_id, http_status, superseded FROM whatsapp_delivery_attempts";
        Ok(sql_query(query).load(&mut self.connection).await?)
    }

    /// Events that are neither delivered nor given up.
    pub async fn pending(&mut self) -> anyhow::Result<i64> {
        self.count("SELECT count(*) FROM whatsapp_webhook_events WHERE status = 'pending'")
            .await
    }

    /// Messages that were committed.
    pub async fn committed(&mut self) -> anyhow::Result<i64> {
        self.count("SELECT count(*) FROM whatsapp_messages").await
    }

    async fn count(&mut self, query: &str) -> anyhow::Result<i64> {
        let counted: Count = sql_query(query).get_result(&mut self.connection).await?;
        Ok(counted.count)
    }
}
