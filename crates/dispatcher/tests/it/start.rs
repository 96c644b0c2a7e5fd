use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use testkit::{Database, Program, Receiver, RedisDatabase, eventually};

use crate::outages::readyz;
use crate::world::{KEYS, SOON, World};

#[tokio::test]
async fn a_wrong_variable_is_one_line_and_exit_64() {
    let world = World::new().await;
    for (variable, value) in [
        ("DISPATCHER_CONCURRENCY", "many"),
        ("WEBHOOK_ALLOWED_CIDRS", "10.0.0.0/33"),
        ("ENCRYPTION_KEYS", "nonsense"),
        ("DATABASE_URL", ""),
    ] {
        let output = world
            .program()
            .env(variable, value)
            .without_readiness()
            .run()
            .await;
        assert_eq!(output.status.code(), Some(64));
        assert!(output.stderr.contains(variable), "{}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_is_named_and_waited_for() {
    let database = Database::create_empty().await;
    let redis = RedisDatabase::acquire().await;
    let mut process = Program::service("recado-dispatcher")
        .env("DATABASE_URL", database.url())
        .env("REDIS_URL", redis.url())
        .env("ENCRYPTION_KEYS", KEYS)
        .without_readiness()
        .start()
        .await;
    let url = process.url("OPS_PORT");
    eventually(SOON, async || process.logs().contains("recado-api migrate")).await;
    let (status, report) = readyz(&url).await;
    assert_eq!(status, 503);
    assert!(
        report["checks"]["schema"]
            .as_str()
            .unwrap()
            .contains("recado-api migrate")
    );
    domain::migration::run(database.connect().await)
        .await
        .unwrap();
    eventually(SOON, async || readyz(&url).await.0 == 200).await;
    assert!(process.stop().await.success());
}

#[tokio::test]
async fn partitions_are_made_by_one_of_the_dispatchers() {
    #[derive(QueryableByName)]
    struct Partition {
        #[diesel(sql_type = Text)]
        name: String,
    }
    let world = World::new().await;
    let (one, two) = (world.dispatcher().await, world.dispatcher().await);
    let tomorrow = (chrono::Utc::now().date_naive() + chrono::Days::new(1)).format("%Y%m%d");
    let expected = format!("whatsapp_delivery_attempts_{tomorrow}");
    let mut conn = world.conn().await;
    eventually(SOON, async || {
        let names: Vec<Partition> = diesel::sql_query("SELECT relname::text AS name FROM pg_class")
            .load(&mut conn)
            .await
            .unwrap();
        names.iter().any(|partition| partition.name == expected)
    })
    .await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn an_attempt_is_a_span_without_what_it_sends() {
    let world = World::new().await;
    let (hook, collector) = (
        world.hook("/in?token=hunter2").await,
        Receiver::start().await,
    );
    let id = world.send(&hook, 1).await[0];
    let mut process = world
        .program()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url(""))
        .start()
        .await;
    world.all(&[id], "delivered").await;
    assert!(process.stop().await.success());

    let bodies: Vec<_> = collector.received_at("/v1/traces");
    let bodies: Vec<_> = bodies.iter().flat_map(|sent| &sent.body).copied().collect();
    let text = String::from_utf8_lossy(&bodies);
    for part in ["dispatcher", "attempt", &id.to_string()] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for part in ["hunter2", "5511", "Olá"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
}
