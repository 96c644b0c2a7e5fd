//! A simulated WhatsApp, a database, a Redis, and gateways in this process between them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Binary, Integer, Json, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use domain::client::Client;
use domain::connection::{Connection, Desired, Pairing};
use domain::statement::Statement;
use domain::webhook::{Changes, Webhook};
use gateway::app::Gateway;
use gateway::config::Config;
use runtime::config::Env;
use runtime::ops::Readiness;
use runtime::shutdown::Shutdown;
use serde_json::Value;
use simulator::Simulator;
use testkit::{Database, Program, RedisDatabase, Servers, eventually};
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(crate) const NUMBER: &str = "5511988887777";
pub(crate) const ANA: &str = "5511911112222";
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const KEYS: &str = "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub(crate) struct Rig {
    simulator: Simulator,
    pub(crate) database: Database,
    redis_url: String,
    _redis: Option<RedisDatabase>,
    http: reqwest::Client,
    pub(crate) client_id: i32,
}

/// A message's row.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub(crate) struct Row {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub(crate) connection_id: Uuid,
    #[diesel(sql_type = Integer)]
    pub(crate) client_id: i32,
    #[diesel(sql_type = Text)]
    pub(crate) event_type: String,
    #[diesel(sql_type = Text)]
    pub(crate) message_id: String,
    #[diesel(sql_type = Text)]
    pub(crate) chat: String,
    #[diesel(sql_type = Text)]
    pub(crate) from: String,
    #[diesel(sql_type = Text)]
    pub(crate) to: String,
    #[diesel(sql_type = Text)]
    pub(crate) message_type: String,
    #[diesel(sql_type = Text)]
    pub(crate) content: String,
    #[diesel(sql_type = Json)]
    pub(crate) metadata: Value,
    #[diesel(sql_type = Nullable<Binary>)]
    pub(crate) raw: Option<Vec<u8>>,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) created_at: DateTime<Utc>,
}

/// An event's row, as far as tests ask.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub(crate) struct EventRow {
    #[diesel(sql_type = Text)]
    pub(crate) event_type: String,
    #[diesel(sql_type = Text)]
    pub(crate) message_id: String,
    #[diesel(sql_type = Text)]
    pub(crate) from: String,
    #[diesel(sql_type = Json)]
    pub(crate) metadata: Value,
}

/// A gateway in this process.
pub(crate) struct Holder {
    shutdown: Shutdown,
    pub(crate) readiness: Readiness,
    task: JoinHandle<anyhow::Result<()>>,
}

/// For the simulator's control API.
pub(crate) fn http() -> reqwest::Client {
    runtime::tls::install_provider();
    let client = reqwest::Client::builder().no_proxy().timeout(LIMIT);
    client.build().unwrap()
}

impl Holder {
    pub(crate) async fn stop(self) {
        self.shutdown.soft().cancel();
        self.task.await.unwrap().unwrap();
    }
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let redis = RedisDatabase::acquire().await;
        let url = redis.url().to_owned();
        Self::over(Database::create().await, url, Some(redis)).await
    }

    /// On servers of the test's own, which it may stop.
    pub(crate) async fn start_on(servers: &Servers) -> Self {
        let url = servers.redis_url().to_owned();
        Self::over(servers.database().await, url, None).await
    }

    async fn over(database: Database, redis_url: String, redis: Option<RedisDatabase>) -> Self {
        let simulator = Simulator::start(simulator::Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            state: None,
        });
        let client = Client::insert(&mut database.connect().await, "acme")
            .await
            .unwrap();
        Self {
            simulator: simulator.await.unwrap(),
            database,
            redis_url,
            _redis: redis,
            http: http(),
            client_id: client.id,
        }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let address = self.simulator.address();
        vec![
            ("APP_ENV", "development".to_owned()),
            ("DATABASE_URL", self.database.url().to_owned()),
            ("REDIS_URL", self.redis_url.clone()),
            ("ENCRYPTION_KEYS", KEYS.to_owned()),
            ("WHATSAPP_URL", format!("ws://{address}/ws/chat")),
            ("WHATSAPP_VERSION", "2.3000.1".to_owned()),
            (
                "WHATSAPP_VERSION_URL",
                "http://127.0.0.1:1/sw.js".to_owned(),
            ),
            ("GATEWAY_CAPACITY", "100".to_owned()),
            ("GATEWAY_CONNECT_RATE", "100".to_owned()),
            ("GATEWAY_SEND_RATE", "100".to_owned()),
            ("GATEWAY_LEASE_SECONDS", "15".to_owned()),
            ("WEBHOOK_ALLOWED_CIDRS", "127.0.0.0/8".to_owned()),
            ("GATEWAY_SILENCE_SECONDS", "90".to_owned()),
        ]
    }

    pub(crate) fn gateway(&self) -> Holder {
        self.gateway_with(&[])
    }

    /// With some of its environment changed.
    pub(crate) fn gateway_with(&self, changes: &[(&'static str, &str)]) -> Holder {
        let changes = changes
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        let env = Env::from_pairs(self.environment().into_iter().chain(changes)).unwrap();
        let gateway = Gateway::new(Config::load(&env).unwrap()).unwrap();
        let shutdown = Shutdown::new(LIMIT);
        let readiness = gateway.readiness();
        let task = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { gateway.run(&shutdown).await }
        });
        Holder {
            shutdown,
            readiness,
            task,
        }
    }

    /// The real binary.
    pub(crate) fn program(&self) -> Program {
        let mut program = Program::service("recado-gateway");
        for (name, value) in self.environment() {
            program = program.env(name, value);
        }
        program
    }

    pub(crate) async fn conn(&self) -> AsyncPgConnection {
        self.database.connect().await
    }

    /// Asks for a session of the number, for a new user of the client.
    pub(crate) async fn connect_for(&self, client_id: i32, number: &str) -> Connection {
        let phone = number.parse().unwrap();
        let mut conn = self.conn().await;
        Connection::connect(&mut conn, client_id, Uuid::new_v4(), &phone, Pairing::Qr)
            .await
            .unwrap()
    }

    /// The code that the connection shows.
    pub(crate) async fn qr(&self, id: Uuid) -> String {
        eventually(LIMIT, async || self.row(id).await.qr_code).await
    }

    /// Links the number: a session that is connected.
    pub(crate) async fn link(&self, number: &str) -> Connection {
        self.link_for(self.client_id, number).await
    }

    pub(crate) async fn link_for(&self, client_id: i32, number: &str) -> Connection {
        let connection = self.connect_for(client_id, number).await;
        let code = self.qr(connection.id).await;
        self.scan(&code, number).await;
        self.wait_for(connection.id, "connected").await
    }

    pub(crate) async fn scan(&self, code: &str, number: &str) {
        let path = format!("/admin/mock-phone/scan-qr?phone={number}");
        self.post(&path, code.to_owned()).await;
    }

    pub(crate) async fn row(&self, id: Uuid) -> Connection {
        let found = Connection::find(&mut self.conn().await, id).await.unwrap();
        found.unwrap()
    }

    pub(crate) async fn wait_for(&self, id: Uuid, status: &str) -> Connection {
        eventually(LIMIT, async || {
            let row = self.row(id).await;
            match row.status == status {
                true => Ok(row),
                false => Err(format!("{} ({:?})", row.status, row.reason)),
            }
        })
        .await
    }

    pub(crate) async fn wait_until_gone(&self, id: Uuid) {
        eventually(LIMIT, async || {
            let found = Connection::find(&mut self.conn().await, id).await;
            found.unwrap().is_none()
        })
        .await;
    }

    pub(crate) async fn desire(&self, connection: &Connection, desired: Desired) {
        let (client_id, user_id) = (connection.client_id, connection.user_id);
        Connection::desire(&mut self.conn().await, client_id, user_id, desired)
            .await
            .unwrap();
    }

    pub(crate) async fn webhook_for(
        &self,
        client_id: i32,
        number: &str,
        types: &[&str],
    ) -> Webhook {
        let changes = Changes {
            webhook_url: Some("https://example.com/hook".to_owned()),
            event_types: Some(types.iter().map(ToString::to_string).collect()),
            ..Changes::default()
        };
        let (id, phone) = (Uuid::now_v7(), number.parse().unwrap());
        let mut conn = self.conn().await;
        let (webhook, _) = Webhook::register(&mut conn, client_id, id, &phone, &changes, b"sealed")
            .await
            .unwrap();
        webhook
    }

    pub(crate) async fn webhook(&self, types: &[&str]) -> Webhook {
        self.webhook_for(self.client_id, NUMBER, types).await
    }

    /// The events of a webhook in the order of their commit.
    pub(crate) async fn events(&self, webhook: &Webhook) -> Vec<EventRow> {
        Statement::new(
            r#"SELECT event_type, message_id, "from", metadata FROM whatsapp_webhook_events
             WHERE webhook_id = ? ORDER BY sequence"#,
        )
        .bind::<SqlUuid, _>(webhook.id)
        .load(&mut self.conn().await)
        .await
        .unwrap()
    }

    /// What the events would be delivered as.
    pub(crate) async fn bodies(&self, webhook: &Webhook) -> Vec<Value> {
        #[derive(QueryableByName)]
        struct Body {
            #[diesel(sql_type = Json)]
            body: Value,
        }
        let bodies: Vec<Body> = Statement::new(
            r#"SELECT json_build_object('client_id', client_id, 'message_id', message_id, 'from', "from",
                   'to', "to", 'type', message_type, 'content', content, 'metadata', metadata,
                   'timestamp', to_char("timestamp" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                   'event', event_type, 'event_id', id, 'connection_id', connection_id) AS body
               FROM whatsapp_webhook_events WHERE webhook_id = ? ORDER BY sequence"#,
        )
        .bind::<SqlUuid, _>(webhook.id)
        .load(&mut self.conn().await)
        .await
        .unwrap();
        bodies.into_iter().map(|Body { body }| body).collect()
    }

    /// All messages, in the order of their commit.
    pub(crate) async fn rows(&self) -> Vec<Row> {
        Statement::new(
            r#"SELECT id, connection_id, client_id, event_type, message_id, chat, "from", "to",
                   message_type, content, metadata, raw, created_at
               FROM whatsapp_messages ORDER BY created_at, id"#,
        )
        .load(&mut self.conn().await)
        .await
        .unwrap()
    }

    pub(crate) async fn wait_for_rows(&self, count: usize) -> Vec<Row> {
        // A sender who is asked for a message once more may take a while.
        eventually(2 * LIMIT, async || {
            let rows = self.rows().await;
            match rows.len() >= count {
                true => Ok(rows),
                false => Err(format!("{} of {count} rows", rows.len())),
            }
        })
        .await
    }

    pub(crate) async fn run_sql(&self, sql: &str) {
        let query = diesel::sql_query(sql);
        query.execute(&mut self.conn().await).await.unwrap();
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            count: i64,
        }
        let query = diesel::sql_query(format!("SELECT count(*) AS count FROM {table}"));
        let count: Count = query.get_result(&mut self.conn().await).await.unwrap();
        count.count
    }

    /// Contacts write to accounts; returns the messages' ids.
    pub(crate) async fn send(&self, message: Value) -> Vec<String> {
        let answer = self.post("/admin/messages", message.to_string()).await;
        let ids = answer["ids"].as_array().unwrap();
        ids.iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect()
    }

    /// What the simulator knows of the messages to a number.
    pub(crate) async fn sent(&self, number: &str) -> Vec<Value> {
        let url = self.url(&format!("/admin/messages?to={number}"));
        let answer = self.http.get(url).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Waits until WhatsApp has acknowledgements for all messages to a number.
    pub(crate) async fn wait_for_acks(&self, number: &str) -> Vec<Value> {
        eventually(LIMIT, async || {
            let sent = self.sent(number).await;
            let open = sent.iter().filter(|message| message["acked_at"].is_null());
            match open.count() {
                0 => Ok(sent),
                open => Err(format!("{open} are not acknowledged")),
            }
        })
        .await
    }

    pub(crate) async fn accounts(&self) -> Vec<Value> {
        let accounts = self.get("/admin/accounts").await;
        accounts.as_array().unwrap().clone()
    }

    /// Whether a device of that number is connected.
    pub(crate) async fn is_online(&self, number: &str) -> bool {
        let accounts = self.accounts().await;
        accounts
            .iter()
            .any(|account| account["phone"] == number && account["online"] == true)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(self.url(path)).send().await.unwrap();
        answer.json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: String) -> Value {
        self.try_post(path, body)
            .await
            .unwrap_or_else(|refused| panic!("{path}: {refused}"))
    }

    pub(crate) async fn try_post(&self, path: &str, body: String) -> Result<Value, String> {
        let request = self.http.post(self.url(path)).body(body);
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        match status.is_success() {
            true => Ok(serde_json::from_str(&text).unwrap_or_default()),
            false => Err(format!("{status} {text}")),
        }
    }

    /// A file of the media host, encrypted as it is.
    pub(crate) async fn stored(&self, path: &str) -> Vec<u8> {
        let answer = self.http.get(self.url(path)).send().await.unwrap();
        answer
            .error_for_status()
            .unwrap()
            .bytes()
            .await
            .unwrap()
            .to_vec()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.simulator.address())
    }
}
