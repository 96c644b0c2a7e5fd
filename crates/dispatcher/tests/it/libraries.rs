//! Receivers written with the official Standard Webhooks libraries of two other languages, as processes of
//! their own: what they accept is signed as the standard says, whatever we think of it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use diesel::sql_types::Uuid as SqlUuid;
use diesel_async::RunQueryDsl;
use domain::token;
use domain::webhook::{self, Changes, Webhook};
use secrecy::ExposeSecret;
use testkit::Received;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use uuid::Uuid;

use crate::world::{Hook, SOON, World, keyring};

/// For a library that has to be fetched first.
const INSTALLING: Duration = Duration::from_secs(120);
/// Of `deploy/local/webhook-libraries`, where the language itself is not there.
const NO_LANGUAGE: i32 = 3;

#[derive(Debug, Clone, Copy)]
enum Language {
    Python,
    Node,
}

/// A receiver with a library. Killed with this value.
struct Judge {
    port: u16,
    http: reqwest::Client,
    _process: Child,
}

impl Judge {
    /// `None` where there is no Node.js, which Recado itself has no use for; that is printed.
    async fn start(language: Language) -> Option<Self> {
        let (name, program, script, variable) = match language {
            Language::Python => ("python", "python3", "receiver.py", "PYTHONPATH"),
            Language::Node => ("node", "node", "receiver.cjs", "NODE_PATH"),
        };
        let libraries = install(name).await?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/it/libraries")
            .join(script);
        let mut process = Command::new(program)
            .arg(script)
            .env(variable, libraries)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = timeout(SOON, lines.next_line()).await.unwrap().unwrap();
        runtime::tls::install_provider();
        Some(Self {
            port: port.expect("it prints its port").parse().unwrap(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _process: process,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// From now on deliveries to the path are checked with this secret.
    async fn tell(&self, path: &str, secret: &str) {
        let told = self.http.put(self.url(path)).body(secret.to_owned());
        assert_eq!(told.send().await.unwrap().status(), 204);
    }

    /// The status for a delivery that arrived elsewhere, with a body and a header of one's choice.
    async fn status(&self, path: &str, received: &Received, changed: Changed) -> u16 {
        let mut request = self.http.post(self.url(path));
        for (name, value) in &received.headers {
            let value = match &changed {
                Changed::Header(other, value) if other == name => value,
                _ => value,
            };
            if name.starts_with("webhook-") {
                request = request.header(name, value);
            }
        }
        let body = match changed {
            Changed::Body(body) => body,
            _ => received.body.to_vec(),
        };
        request.body(body).send().await.unwrap().status().as_u16()
    }
}

enum Changed {
    Nothing,
    Body(Vec<u8>),
    Header(&'static str, String),
}

/// The folder of the library, which is brought if it isn't there.
async fn install(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let mut script = Command::new(root.unwrap().join("deploy/local/webhook-libraries"));
    let done = script.arg(name).stdin(Stdio::null()).output();
    let Output {
        status,
        stdout,
        stderr,
    } = timeout(INSTALLING, done).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&stderr);
    if status.code() == Some(NO_LANGUAGE) {
        eprintln!("NOT CHECKED: {told}");
        return None;
    }
    assert!(status.success(), "{status}: {told}");
    Some(String::from_utf8(stdout).unwrap().trim().into())
}

/// A webhook at the receiver, which knows its secret.
async fn known(world: &World, judge: &Judge, path: &str) -> Hook {
    let hook = world.hook_at(&judge.url(path)).await;
    judge.tell(path, hook.secret()).await;
    hook
}

async fn every_delivery_is_accepted(language: Language) {
    let Some(judge) = Judge::start(language).await else {
        return;
    };
    let world = World::new().await;
    let (single, batches) = (
        known(&world, &judge, "/single").await,
        known(&world, &judge, "/batches").await,
    );
    let batched = Changes {
        batch_max_events: Some(Some(10)),
        batch_max_wait_ms: Some(Some(20)),
        ..Changes::default()
    };
    world.change(&batches, &batched).await;
    let running = world.dispatcher().await;
    let mut ids = world.send(&single, 50).await;
    ids.extend(world.send(&batches, 50).await);
    world.all(&ids, "delivered").await;
    for id in ids {
        let event = world.event(id).await;
        assert_eq!((event.attempt_count, event.http_status), (1, Some(204)));
    }
    running.stop().await;
}

async fn both_secrets_are_accepted_during_a_rotation(language: Language) {
    let Some(judge) = Judge::start(language).await else {
        return;
    };
    let world = World::new().await;
    let hook = known(&world, &judge, "/rotated").await;
    let (old, new) = (hook.secret(), token::new_signing_secret());
    let sealed = webhook::seal_secret(&keyring(), hook.id, &new);
    let mut conn = world.conn().await;
    let rotated = Webhook::rotate_secret(&mut conn, world.client.id, hook.id, &sealed, 3600);
    assert!(rotated.await.unwrap());
    let running = world.dispatcher().await;
    // A receiver that has not heard of it yet, and then one that has.
    for secret in [old, new.expose_secret()] {
        judge.tell("/rotated", secret).await;
        let ids = world.send(&hook, 5).await;
        world.all(&ids, "delivered").await;
    }
    running.stop().await;
}

/// PEERS' complaint: a webhook's retry carries the first attempt's timestamp, so freshness checks fail.
async fn a_retry_is_accepted_hours_later(language: Language) {
    let Some(judge) = Judge::start(language).await else {
        return;
    };
    let world = World::new().await;
    let hook = world.hook_at(&judge.url("/late")).await;
    let running = world.dispatcher().await;
    let id = world.send(&hook, 1).await[0];
    let failed = world.attempted(id, 1).await;
    assert_eq!(failed.http_status, Some(503));

    judge.tell("/late", hook.secret()).await;
    hours_pass(&world, id).await;
    world.all(&[id], "delivered").await;
    let [first, second] = &world.attempts(id).await[..] else {
        panic!("two attempts");
    };
    assert!((second.started_at - first.started_at).num_hours() >= 6);
    assert_eq!(second.http_status, Some(204));
    running.stop().await;
}

/// Everything of the event is six hours older, and its next attempt is due.
async fn hours_pass(world: &World, id: Uuid) {
    let mut conn = world.conn().await;
    for statement in [
        "UPDATE whatsapp_delivery_attempts SET started_at = started_at - interval '6 hours' WHERE event_id = $1",
        "UPDATE whatsapp_webhook_events
         SET created_at = created_at - interval '6 hours', next_retry_at = now() WHERE id = $1",
    ] {
        let statement = diesel::sql_query(statement).bind::<SqlUuid, _>(id);
        assert_eq!(statement.execute(&mut conn).await.unwrap(), 1);
    }
}

/// So that the other tests of this file can fail.
async fn what_is_not_ours_is_refused(language: Language) {
    let Some(judge) = Judge::start(language).await else {
        return;
    };
    let world = World::new().await;
    let strangers = world.hook_at(&judge.url("/strangers")).await;
    let other = token::new_signing_secret();
    judge.tell("/strangers", other.expose_secret()).await;
    let running = world.dispatcher().await;
    let id = world.send(&strangers, 1).await[0];
    assert_eq!(world.attempted(id, 1).await.http_status, Some(401));

    let hook = world.hook("/in").await;
    judge.tell("/in", hook.secret()).await;
    world.send(&hook, 1).await;
    let received = world.receiver.wait_for(1, SOON).await.remove(0);
    assert_eq!(judge.status("/in", &received, Changed::Nothing).await, 204);
    let altered = String::from_utf8(received.body.to_vec())
        .unwrap()
        .replace("Olá", "Ola");
    let header = |name: &str| received.header(name).unwrap().to_owned();
    let seconds: i64 = header("webhook-timestamp").parse().unwrap();
    for changed in [
        Changed::Body(altered.into_bytes()),
        Changed::Header("webhook-id", Uuid::new_v4().to_string()),
        Changed::Header("webhook-timestamp", (seconds + 1).to_string()),
        Changed::Header("webhook-timestamp", (seconds - 6 * 3600).to_string()),
        Changed::Header(
            "webhook-signature",
            header("webhook-signature").to_lowercase(),
        ),
    ] {
        assert_eq!(judge.status("/in", &received, changed).await, 401);
    }
    running.stop().await;
}

macro_rules! in_both_languages {
    ($($test:ident: $python:ident, $node:ident;)+) => {$(
        #[tokio::test]
        async fn $python() {
            $test(Language::Python).await;
        }

        #[tokio::test]
        async fn $node() {
            $test(Language::Node).await;
        }
    )+};
}

in_both_languages! {
    every_delivery_is_accepted:
        the_official_library_for_python_accepts_every_delivery,
        the_official_library_for_node_accepts_every_delivery;
    both_secrets_are_accepted_during_a_rotation:
        the_official_library_for_python_accepts_both_secrets_during_a_rotation,
        the_official_library_for_node_accepts_both_secrets_during_a_rotation;
    a_retry_is_accepted_hours_later:
        the_official_library_for_python_accepts_a_retry_hours_later,
        the_official_library_for_node_accepts_a_retry_hours_later;
    what_is_not_ours_is_refused:
        the_official_library_for_python_refuses_what_is_not_ours,
        the_official_library_for_node_refuses_what_is_not_ours;
}
