use std::time::Duration;

use diesel::sql_types::Bool;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use testkit::{Database, RedisDatabase, eventually};

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

async fn ask(connection: &mut AsyncPgConnection, question: &str) -> bool {
    let query = sql_query(format!("SELECT {question} AS yes"));
    query.get_result::<Answer>(connection).await.unwrap().yes
}

#[tokio::test]
async fn each_database_is_migrated_and_nobody_elses() {
    let (one, two) = tokio::join!(Database::create(), Database::create());
    assert_ne!(one.url(), two.url());
    let mut pooled = one.pool().get().await.unwrap();
    sql_query("CREATE TABLE mine ()")
        .execute(&mut pooled)
        .await
        .unwrap();
    let mut other = two.connect().await;
    assert!(
        ask(
            &mut other,
            "to_regclass('__diesel_schema_migrations') IS NOT NULL"
        )
        .await
    );
    assert!(ask(&mut other, "to_regclass('whatsapp_messages') IS NOT NULL").await);
    assert!(ask(&mut other, "to_regclass('mine') IS NULL").await);
}

#[tokio::test]
async fn an_empty_database_has_no_table() {
    let empty = Database::create_empty().await;
    let mut connection = empty.connect().await;
    let tables = "NOT EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public')";
    assert!(ask(&mut connection, tables).await);
}

#[tokio::test]
async fn a_database_goes_with_its_value_though_it_is_in_use() {
    let database = Database::create().await;
    let name = database.url().rsplit('/').next().unwrap().to_owned();
    let _used = database.pool().get().await.unwrap();
    let other = Database::create().await;
    drop(database);
    let gone = format!("NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}')");
    assert!(ask(&mut other.connect().await, &gone).await);
}

#[tokio::test]
async fn a_redis_database_is_empty_and_nobody_elses_until_it_is_given_back() {
    let (one, two) = tokio::join!(RedisDatabase::acquire(), RedisDatabase::acquire());
    assert_ne!(one.url(), two.url());
    let mut connection = one.pool().get().await.unwrap();
    redis::cmd("SET")
        .arg("key")
        .arg("value")
        .exec_async(&mut connection)
        .await
        .unwrap();
    let size = async |database: &RedisDatabase| -> u64 {
        let mut connection = database
            .client()
            .get_multiplexed_async_connection()
            .await
            .unwrap();
        redis::cmd("DBSIZE")
            .query_async(&mut connection)
            .await
            .unwrap()
    };
    assert_eq!((size(&one).await, size(&two).await), (1, 0));
}

#[tokio::test]
#[should_panic(expected = "not so within 20ms; the last answer: 3 of 4")]
async fn a_condition_that_is_not_met_fails_with_its_last_answer() {
    eventually(Duration::from_millis(20), async || Err::<(), _>("3 of 4")).await;
}
