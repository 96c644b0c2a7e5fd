use diesel_async::{AsyncConnection, AsyncPgConnection};
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
