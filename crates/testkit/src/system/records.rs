//! What PostgreSQL knows, asked without any of Recado's own queries.

use anyhow::Context;
use chrono::{DateTime, Utc};
use diesel::sql_types::{
    Array, BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
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
    /// The order of commit.
    #[diesel(sql_type = BigInt)]
    pub sequence: i64,
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
    #[diesel(sql_type = Timestamptz)]
    pub started_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub http_status: Option<i32>,
    /// `None` where it was delivered.
    #[diesel(sql_type = Nullable<Text>)]
    pub error_class: Option<String>,
    #[diesel(sql_type = Bool)]
    pub superseded: bool,
}

/// A connection and who holds its session.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Session {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub owner: Option<Uuid>,
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    /// Counts the changes of status.
    #[diesel(sql_type = BigInt)]
    pub transition: i64,
    #[diesel(sql_type = Text)]
    pub status: String,
    #[diesel(sql_type = Nullable<Text>)]
    pub reason: Option<String>,
}

/// An event in the hands of a dispatcher.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct Claim {
    #[diesel(sql_type = SqlUuid)]
    pub event_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub token: Uuid,
    /// Until it runs out, by PostgreSQL's clock.
    #[diesel(sql_type = Double)]
    pub seconds_left: f64,
}

/// A change of an event that had been decided, or of its attempts to fewer.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct StepBack {
    #[diesel(sql_type = SqlUuid)]
    pub event_id: Uuid,
    #[diesel(sql_type = Text)]
    pub before: String,
    #[diesel(sql_type = Text)]
    pub after: String,
}

/// Whatever writes it, and whenever: PostgreSQL itself sees every change.
const WATCH: &str = "
    CREATE TABLE steps_back (event_id uuid NOT NULL, before text NOT NULL, after text NOT NULL);
    CREATE FUNCTION note_step_back() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO steps_back VALUES (OLD.id,
            concat_ws(' ', OLD.status, OLD.attempt_count, OLD.http_status),
            concat_ws(' ', NEW.status, NEW.attempt_count, NEW.http_status));
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_step_back AFTER UPDATE ON whatsapp_webhook_events FOR EACH ROW
        WHEN (NEW.attempt_count < OLD.attempt_count
              OR OLD.status <> 'pending'
                 AND (NEW.status, NEW.attempt_count, NEW.http_status, NEW.delivered_at)
                     IS DISTINCT FROM (OLD.status, OLD.attempt_count, OLD.http_status, OLD.delivered_at))
        EXECUTE FUNCTION note_step_back()";

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
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
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
        let query =
            "SELECT id, sequence, source_id, webhook_id, event_type, message_id, status, created_at
                     FROM whatsapp_webhook_events";
        Ok(sql_query(query).load(&mut self.connection).await?)
    }

    /// Every attempt that was recorded.
    pub async fn attempts(&mut self) -> anyhow::Result<Vec<Attempt>> {
        let query = "SELECT event_id, started_at, http_status, error_class, superseded
                     FROM whatsapp_delivery_attempts";
        Ok(sql_query(query).load(&mut self.connection).await?)
    }

    /// Every connection, in the order of its id.
    pub async fn sessions(&mut self) -> anyhow::Result<Vec<Session>> {
        let query = "SELECT id, owner, epoch, transition, status, reason
                     FROM whatsapp_connections ORDER BY id";
        Ok(sql_query(query).load(&mut self.connection).await?)
    }

    /// Every claim that is out.
    pub async fn claims(&mut self) -> anyhow::Result<Vec<Claim>> {
        let query = "SELECT id AS event_id, claim_token AS token,
                         extract(epoch FROM claimed_until - clock_timestamp())::float8 AS seconds_left
                     FROM whatsapp_webhook_events
                     WHERE status = 'pending' AND claimed_until IS NOT NULL";
        Ok(sql_query(query).load(&mut self.connection).await?)
    }

    /// Whether a statement runs that began so long ago or earlier, on another connection.
    pub async fn is_at_work(&mut self, seconds: f64) -> anyhow::Result<bool> {
        let query = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()
               AND query_start <= clock_timestamp() - make_interval(secs => {seconds})"
        );
        Ok(self.count(&query).await? > 0)
    }

    /// From now on, notes what [`Records::steps_back`] tells.
    pub async fn watch_steps_back(&mut self) -> anyhow::Result<()> {
        Ok(self.connection.batch_execute(WATCH).await?)
    }

    /// Every step back since the watch began.
    pub async fn steps_back(&mut self) -> anyhow::Result<Vec<StepBack>> {
        let query = "SELECT event_id, before, after FROM steps_back";
        Ok(sql_query(query).load(&mut self.connection).await?)
    }

    /// Events that are neither delivered nor given up.
    pub async fn pending(&mut self) -> anyhow::Result<i64> {
        self.count("SELECT count(*) FROM whatsapp_webhook_events WHERE status = 'pending'")
            .await
    }

    /// Those of these webhooks.
    pub async fn pending_of(&mut self, webhooks: &[Uuid]) -> anyhow::Result<i64> {
        let query = "SELECT count(*) FROM whatsapp_webhook_events
                     WHERE status = 'pending' AND webhook_id = ANY($1)";
        let query = sql_query(query).bind::<Array<SqlUuid>, _>(webhooks);
        Ok(query.get_result::<Count>(&mut self.connection).await?.count)
    }

    /// What has been lost, by PostgreSQL alone: each message has the events that it was to become, and each
    /// event is delivered, a dead letter, due at some time, or parked for a reason.
    pub async fn losses(&mut self) -> anyhow::Result<Vec<String>> {
        let rules = [
            (
                "messages without all of their events",
                "SELECT count(*) FROM whatsapp_messages m
                 LEFT JOIN (SELECT source_id, count(*) AS events FROM whatsapp_webhook_events GROUP BY source_id) e
                     ON e.source_id = m.id
                 WHERE m.fan_out <> coalesce(e.events, 0)",
            ),
            (
                "events that wait for nothing, and are neither delivered nor dead letters",
                "SELECT count(*) FROM whatsapp_webhook_events e
                 WHERE NOT (status = 'delivered'
                     OR status = 'failed' AND EXISTS (SELECT FROM whatsapp_dead_letters d WHERE d.event_id = e.id)
                     OR status = 'pending' AND (next_retry_at IS NOT NULL OR parked IS NOT NULL))",
            ),
        ];
        let mut losses = Vec::new();
        for (what, query) in rules {
            let count = self.count(query).await?;
            if count > 0 {
                losses.push(format!("{count} {what}"));
            }
        }
        Ok(losses)
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
