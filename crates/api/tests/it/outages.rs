//! PostgreSQL and Redis away, at start and in mid-flight; and a schema that isn't there yet.

use reqwest::Method;
use serde_json::{Value, json};
use testkit::{Database, Process, Program, RedisDatabase, Server, Servers, eventually};

use crate::process::{LIMIT, request, service};
use crate::stream::Stream;
use crate::world::{Answer, NUMBER, URL, http};

async fn readiness(process: &Process) -> (u16, Value) {
    let answer = Answer::of(http().get(format!("{}/readyz", process.url("OPS_PORT")))).await;
    (answer.status, answer.json()["checks"].clone())
}

async fn ready(process: &Process) {
    eventually(LIMIT, async || match readiness(process).await {
        (200, _) => Ok(()),
        (_, checks) => Err(checks.to_string()),
    })
    .await;
}

/// Waits until exactly these checks fail, and returns them all.
async fn unready(process: &Process, failing: &[&str]) -> Value {
    eventually(LIMIT, async || {
        let (status, checks) = readiness(process).await;
        let fails = |name: &str| checks[name] != "ok";
        let as_said = ["postgres", "schema", "redis"]
            .iter()
            .all(|name| fails(name) == failing.contains(name));
        match status == 503 && as_said {
            true => Ok(checks),
            false => Err(checks.to_string()),
        }
    })
    .await
}

async fn get(process: &Process, path: &str) -> Answer {
    Answer::of(request(&process.url("PORT"), Method::GET, path)).await
}

/// Started by a pod before anything else is there.
async fn start(program: Program) -> Process {
    program.ready("OPS_PORT", "/livez").start().await
}

#[tokio::test]
async fn the_service_starts_without_its_servers_and_works_when_they_come() {
    let servers = Servers::start().await;
    let database = servers.database().await;
    let program = service(database.url(), servers.redis_url());
    servers.stop(Server::Postgres).await;
    servers.stop(Server::Redis).await;

    let mut process = start(program).await;
    unready(&process, &["postgres", "schema", "redis"]).await;
    get(&process, "/health").await.ok();
    let refused = get(&process, "/me").await;
    refused.problem(503);
    assert!(!refused.header("retry-after").is_empty());

    servers.resume(Server::Postgres).await;
    unready(&process, &["redis"]).await;
    get(&process, "/me").await.ok();
    servers.resume(Server::Redis).await;
    ready(&process).await;
    assert!(process.stop().await.success());
}

#[tokio::test]
async fn a_missing_schema_is_named_and_a_migration_is_enough() {
    let (database, redis) = (
        Database::create_empty().await,
        RedisDatabase::acquire().await,
    );
    let process = start(service(database.url(), redis.url())).await;
    let checks = unready(&process, &["schema"]).await;
    assert!(
        checks["schema"]
            .as_str()
            .unwrap()
            .contains("recado-api migrate"),
        "{checks}"
    );
    assert!(process.logs().contains("recado-api migrate"));
    let refused = get(&process, "/me").await.problem(503);
    assert!(
        refused["detail"].as_str().unwrap().contains("up to date"),
        "{refused}"
    );

    let migrate = Program::new("recado-api")
        .arg("migrate")
        .env("DATABASE_URL", database.url());
    assert!(migrate.run().await.status.success());
    get(&process, "/me").await.ok();
    ready(&process).await;
}

#[tokio::test]
async fn an_old_schema_is_named() {
    use diesel_async::SimpleAsyncConnection;
    let (database, redis) = (Database::create().await, RedisDatabase::acquire().await);
    let forget = "DELETE FROM __diesel_schema_migrations
        WHERE version = (SELECT max(version) FROM __diesel_schema_migrations)";
    database
        .connect()
        .await
        .batch_execute(forget)
        .await
        .unwrap();
    let process = start(service(database.url(), redis.url())).await;
    let checks = unready(&process, &["schema"]).await;
    assert!(
        checks["schema"]
            .as_str()
            .unwrap()
            .contains("older than this build"),
        "{checks}"
    );
    get(&process, "/me").await.problem(503);
}

#[tokio::test]
async fn while_postgresql_is_away_requests_are_refused_and_then_answered_again() {
    let servers = Servers::start().await;
    let database = servers.database().await;
    let program = service(database.url(), servers.redis_url()).env("WEBHOOK_TIMEOUT", "1");
    let process = program.start().await;
    get(&process, "/me").await.ok();
    let url = process.url("PORT");
    let mut stream = Stream::of(request(&url, Method::GET, "/api/events/stream")).await;

    servers.crash(Server::Postgres).await;
    for path in ["/me", "/api/webhooks/list", "/api/whatsapp/connections"] {
        let refused = get(&process, path).await;
        refused.problem(503);
        assert!(!refused.header("retry-after").is_empty());
    }
    get(&process, "/health").await.ok();
    unready(&process, &["postgres", "schema"]).await;

    servers.resume(Server::Postgres).await;
    get(&process, "/me").await.ok();
    ready(&process).await;
    // Who follows what happens was kept waiting, and goes on.
    let webhook = json!({"phone_number": NUMBER, "webhook_url": URL});
    let register = request(&url, Method::POST, "/api/webhooks/register").json(&webhook);
    let webhook = Answer::of(register).await.json()["webhook"]["id"].clone();
    let path = format!("/api/webhooks/{}/test", webhook.as_str().unwrap());
    let sampled = Answer::of(request(&url, Method::POST, &path)).await;
    assert_eq!(sampled.status, 202);
    let told = stream.next().await.expect("it goes on").data;
    assert_eq!(told["id"], sampled.json()["event_id"]);
}

#[tokio::test]
async fn while_redis_is_away_everything_else_works() {
    let servers = Servers::start().await;
    let database = servers.database().await;
    let program = service(database.url(), servers.redis_url()).env("GATEWAY_WAIT", "300");
    let process = program.start().await;
    servers.stop(Server::Redis).await;
    unready(&process, &["redis"]).await;

    let url = process.url("PORT");
    let webhook = json!({"phone_number": NUMBER, "webhook_url": URL});
    let register = request(&url, Method::POST, "/api/webhooks/register").json(&webhook);
    assert_eq!(Answer::of(register).await.status, 201);
    let user = uuid::Uuid::new_v4();
    let connect = request(&url, Method::POST, "/api/whatsapp/connect")
        .json(&json!({"user_id": user, "phone_number": NUMBER}));
    // Asked for all the same: what is missing here is the gateway.
    let answer = Answer::of(connect).await.problem(503);
    assert_eq!(answer["type"], "urn:recado:problem:no-gateway");
    get(&process, &format!("/api/whatsapp/status/{user}"))
        .await
        .ok();
    let metrics = http().get(format!("{}/metrics", process.url("OPS_PORT")));
    let metrics = String::from_utf8(Answer::of(metrics).await.bytes).unwrap();
    assert!(
        metrics.contains("recado_api_rings_failed_total{bell=\"connections\"} 1"),
        "{metrics}"
    );

    servers.resume(Server::Redis).await;
    ready(&process).await;
}
