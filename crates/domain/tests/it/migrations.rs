use std::path::{Path, PathBuf};

use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use domain::migration::{self, SchemaError};
use testkit::Database;

#[tokio::test(flavor = "multi_thread")]
async fn several_migrators_at_once_are_one_migration() {
    let database = Database::create_empty().await;
    let mut conn = AsyncPgConnection::establish(database.url()).await.unwrap();
    assert!(matches!(
        migration::check(&mut conn).await,
        Err(SchemaError::Missing)
    ));

    let migrators = (0..6).map(|_| async {
        let conn = AsyncPgConnection::establish(database.url()).await.unwrap();
        migration::run(conn).await.unwrap().len()
    });
    let ran: Vec<usize> = futures_util::future::join_all(migrators).await;

    assert_eq!(ran.iter().filter(|count| **count > 0).count(), 1);
    migration::check(&mut conn).await.unwrap();
}

/// What a table is made of, but for the order of its columns.
async fn schema(database: &Database) -> Vec<String> {
    #[derive(diesel::QueryableByName)]
    struct Part {
        #[diesel(sql_type = diesel::sql_types::Text)]
        part: String,
    }
    let mut conn = database.connect().await;
    let parts: Vec<Part> = diesel::sql_query(
        "SELECT concat_ws(' ', table_name, column_name, data_type, column_default, is_nullable) AS part
         FROM information_schema.columns WHERE table_schema = 'public'
         UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
         ORDER BY part",
    )
    .load(&mut conn)
    .await
    .unwrap();
    parts.into_iter().map(|part| part.part).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_migration_can_be_taken_back_and_run_again() {
    let database = Database::create_empty().await;
    let migrate = async || {
        let conn = AsyncPgConnection::establish(database.url()).await.unwrap();
        migration::run(conn).await.unwrap()
    };
    let ran = migrate().await;
    let whole = schema(&database).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert_eq!(folders.len(), ran.len());
    let mut conn = database.connect().await;
    for folder in folders.iter().rev() {
        let down = std::fs::read_to_string(folder.join("down.sql")).unwrap();
        let done = conn.batch_execute(&down).await;
        done.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
    let forget = "DELETE FROM __diesel_schema_migrations";
    conn.batch_execute(forget).await.unwrap();
    let left = schema(&database).await;
    assert!(
        left.iter()
            .all(|part| part.contains("__diesel_schema_migrations")),
        "{left:?}"
    );
    assert_eq!(migrate().await.len(), ran.len());
    assert_eq!(schema(&database).await, whole);
}
