use std::future::pending;
use std::time::{Duration, Instant};

use runtime::config::{DatabaseConfig, RedisConfig};
use runtime::ops::{Readiness, Status};
use runtime::{postgres, redis};
use testkit::{Database, RedisDatabase, free_port};

#[tokio::test]
async fn a_failed_check_is_named_with_its_reason_and_spoils_only_itself() {
    let readiness = Readiness::new()
        .check("fine", || async { Ok::<_, String>(()) })
        .check("broken", || async { Err("no bread") });
    let report = readiness.report().await;
    assert_eq!(report.status, Status::Unavailable);
    assert_eq!(
        serde_json::to_string(&report).unwrap(),
        r#"{"status":"unavailable","checks":{"broken":"no bread","fine":"ok"}}"#
    );
}

#[tokio::test]
async fn checks_that_hang_are_cut_off_together() {
    let hanging = || pending::<Result<(), String>>();
    let readiness = Readiness::new().check("a", hanging).check("b", hanging);
    let start = Instant::now();
    let report = readiness.report().await;
    assert!(
        start.elapsed() < Duration::from_millis(1900),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(report.checks["a"], "no answer within 1 s");
    assert_eq!(report.checks["b"], "no answer within 1 s");
}

#[tokio::test]
async fn the_servers_are_checked_by_asking_them() {
    let (database, redis_database) = (Database::create().await, RedisDatabase::acquire().await);
    let ready = Readiness::new()
        .postgres(database.pool())
        .redis(redis_database.pool());
    assert_eq!(ready.report().await.status, Status::Ok);

    let nobody = free_port();
    let config = DatabaseConfig::from_url(&format!("postgres://u:hunter2@127.0.0.1:{nobody}/d"));
    let postgres = postgres::pool(&config.unwrap()).unwrap();
    let config = RedisConfig::from_url(&format!("redis://:hunter2@127.0.0.1:{nobody}"));
    let redis = redis::pool(&config.unwrap()).unwrap();
    let report = Readiness::new()
        .postgres(postgres)
        .redis(redis)
        .report()
        .await;
    assert_eq!(report.status, Status::Unavailable);
    for name in ["postgres", "redis"] {
        let reason = &report.checks[name];
        assert!(
            reason.contains("refused") && !reason.contains("hunter2"),
            "{name}: {reason}"
        );
    }
}
