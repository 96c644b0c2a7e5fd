//! The API on ports of its own, clients that call it, and what arrives for them.

use std::ops::DerefMut;

use api::app::Application;
use api::config::Config;
use chrono::{DateTime, Utc};
use diesel_async::AsyncPgConnection;
use domain::client::{Client, NewToken, Token};
use domain::connection::{Connection, Pairing};
use domain::event_type::EventType;
use domain::ids::{self, MessageKey};
use domain::inbox;
use domain::lease::Lease;
use domain::message::NewMessage;
use domain::token;
use reqwest::{Method, RequestBuilder, StatusCode};
use runtime::config::Env;
use runtime::shutdown::Shutdown;
use runtime::{telemetry, tls};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use testkit::{Database, RedisDatabase};
use uuid::Uuid;

use crate::described;

pub(crate) const NUMBER: &str = "5511988887777";
pub(crate) const URL: &str = "https://recado.invalid/hook";
pub(crate) const KEY: &str = "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub(crate) struct Api {
    pub(crate) database: Database,
    pub(crate) redis: RedisDatabase,
    pub(crate) url: String,
    http: reqwest::Client,
    shutdown: Shutdown,
}

/// A client with a token.
pub(crate) struct Tenant<'a> {
    api: &'a Api,
    pub(crate) id: i32,
    pub(crate) token: SecretString,
}

/// An answer with its body read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn http() -> reqwest::Client {
    tls::install_provider();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With these variables besides, or instead of, those that a test needs.
    pub(crate) async fn start_with(changes: &[(&str, &str)]) -> Self {
        tls::install_provider();
        let (database, redis) = (Database::create().await, RedisDatabase::acquire().await);
        let base = [
            ("APP_ENV", "development"),
            ("DATABASE_URL", database.url()),
            ("DATABASE_POOL_SIZE", "6"),
            ("REDIS_URL", redis.url()),
            ("ENCRYPTION_KEYS", KEY),
            ("GATEWAY_WAIT", "10000"),
            ("WEBHOOK_TIMEOUT", "10000"),
            ("WHATSAPP_MEDIA_URL", "http://127.0.0.1:9"),
            ("MEDIA_TIMEOUT", "10000"),
            ("MEDIA_DOWNLOADS", "4"),
            ("RATE_LIMIT_PER_CLIENT", "0"),
            ("RATE_LIMIT_PER_ADDRESS", "0"),
            ("MAX_CONNECTIONS", "1000"),
            ("PORT", "0"),
            ("OPS_PORT", "0"),
        ];
        let env = Env::from_pairs(base.iter().chain(changes).copied()).unwrap();
        let shutdown = Shutdown::new(std::time::Duration::from_secs(5));
        let config = Config::from_env(&env).unwrap();
        let metrics = telemetry::detached_metrics();
        let application = Application::build(config, metrics, shutdown.clone())
            .await
            .unwrap();
        let url = format!("http://{}", application.address());
        tokio::spawn(application.run());
        Self {
            database,
            redis,
            url,
            http: http(),
            shutdown,
        }
    }

    pub(crate) async fn conn(&self) -> impl DerefMut<Target = AsyncPgConnection> + use<> {
        self.database.pool().get().await.unwrap()
    }

    /// Asks it to stop in good order.
    pub(crate) fn stop(&self) {
        self.shutdown.soft().cancel();
    }

    pub(crate) async fn tenant(&self, name: &str) -> Tenant<'_> {
        let mut conn = self.conn().await;
        let client = Client::insert(&mut conn, name).await.unwrap();
        let token = token::new_api_token();
        Token::insert(&mut conn, &NewToken::of(client.id, "test", &token))
            .await
            .unwrap();
        Tenant {
            api: self,
            id: client.id,
            token,
        }
    }

    /// A request without a token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shutdown.hard().cancel();
    }
}

impl Tenant<'_> {
    pub(crate) async fn conn(&self) -> impl DerefMut<Target = AsyncPgConnection> + use<> {
        self.api.conn().await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.api.request(method, path);
        request.bearer_auth(self.token.expose_secret())
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PATCH, path).json(&body)).await
    }

    /// Registers a webhook and returns its id.
    pub(crate) async fn webhook(&self, number: &str) -> Uuid {
        let request = json!({"phone_number": number, "webhook_url": URL});
        let answer = self.post("/api/webhooks/register", request).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        id(&answer.json()["webhook"]["id"])
    }

    /// A connection of the number that no gateway has seen yet.
    pub(crate) async fn connection(&self, number: &str) -> Connection {
        let mut conn = self.api.conn().await;
        let phone = number.parse().unwrap();
        Connection::connect(&mut conn, self.id, Uuid::new_v4(), &phone, Pairing::Qr)
            .await
            .unwrap()
    }

    /// Messages with these ids arrive; returns the ids of the events that they became.
    pub(crate) async fn receive(&self, connection: &Connection, message_ids: &[&str]) -> Vec<Uuid> {
        let messages: Vec<NewMessage> = message_ids
            .iter()
            .map(|id| message(connection, id))
            .collect();
        let batch: Vec<&NewMessage> = messages.iter().collect();
        let mut conn = self.api.conn().await;
        inbox::accept(&mut conn, &batch).await.unwrap().events
    }
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let (http, request) = request.build_split();
        let request = request.unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = http.execute(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        // One that is a stream has no end.
        let bytes = match headers.get("content-type") {
            Some(kind) if kind == "text/event-stream" => Vec::new(),
            _ => response.bytes().await.unwrap().to_vec(),
        };
        let answer = Self {
            status,
            headers,
            bytes,
        };
        described::check(&method, &path, &answer);
        answer
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The body of an answer that succeeded.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }

    /// The problem details of a refusal, which say what they must.
    pub(crate) fn problem(&self, status: u16) -> Value {
        let problem = self.json();
        assert_eq!(self.status, status, "{problem}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(problem["status"], status);
        let reason = StatusCode::from_u16(status)
            .unwrap()
            .canonical_reason()
            .unwrap();
        match problem["type"].as_str().unwrap() {
            "about:blank" => assert_eq!(problem["title"], reason),
            urn => assert!(urn.starts_with("urn:recado:problem:"), "{urn}"),
        }
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        problem
    }

    /// The field that a 400 blames.
    pub(crate) fn field(&self) -> String {
        let problem = self.problem(400);
        let errors = problem["errors"]
            .as_array()
            .unwrap_or_else(|| panic!("{problem}"));
        assert_eq!(errors.len(), 1);
        assert!(!errors[0]["detail"].as_str().unwrap().is_empty());
        errors[0]["field"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn id(value: &Value) -> Uuid {
    value.as_str().unwrap().parse().unwrap()
}

/// What is another at each run, by what it is.
pub(crate) fn redacted(mut body: Value) -> Value {
    redact(&mut body);
    body
}

fn redact(value: &mut Value) {
    match value {
        Value::String(text) => {
            let kind = if text.parse::<Uuid>().is_ok() {
                "[uuid]"
            } else if DateTime::parse_from_rfc3339(text).is_ok() {
                "[time]"
            } else if text.starts_with("whsec_") {
                "[secret]"
            } else if text.starts_with("data:image/png;base64,") {
                "[png]"
            } else {
                return;
            };
            *text = kind.to_owned();
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(members) => {
            for (name, member) in members {
                match name.as_str() {
                    "next_cursor" if !member.is_null() => *member = "[cursor]".into(),
                    _ => redact(member),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

pub(crate) fn message(connection: &Connection, message_id: &str) -> NewMessage {
    let timestamp = DateTime::from_timestamp(Utc::now().timestamp(), 0).unwrap();
    let chat = "5511999999999@s.whatsapp.net";
    NewMessage {
        id: ids::message(MessageKey {
            connection: connection.id,
            chat,
            sender: chat,
            message_id,
            timestamp,
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
        metadata: r#"{"v":1,"chat":"5511999999999@s.whatsapp.net","push_name":"Ana"}"#.to_owned(),
        timestamp,
        raw: None,
        media: None,
    }
}

/// The hold on a connection, whoever has it.
pub(crate) async fn lease(conn: &mut AsyncPgConnection, connection: Uuid) -> Lease {
    let found = Connection::find(conn, connection).await;
    found.unwrap().unwrap().lease()
}
