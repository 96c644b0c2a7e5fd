use std::time::Duration;

use diesel::sql_query;
use diesel_async::RunQueryDsl;
use runtime::config::RedisConfig;
use testkit::{Server, Servers, eventually};

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn private_servers_are_stopped_crashed_and_resumed_and_keep_their_data() {
    let servers = Servers::start().await;
    let database = servers.database().await;
    let config = RedisConfig::from_url(servers.redis_url()).unwrap();
    let redis = runtime::redis::pool(&config).unwrap();
    let alive = async || {
        let mut connection = database
            .pool()
            .get()
            .await
            .map_err(|error| error.to_string())?;
        let rows = sql_query("INSERT INTO kept VALUES (1)")
            .execute(&mut connection)
            .await;
        rows.map_err(|error| error.to_string())?;
        let mut connection = redis.get().await.map_err(|error| error.to_string())?;
        let ping = redis::cmd("PING").exec_async(&mut connection).await;
        ping.map_err(|error| error.to_string())
    };
    let mut connection = database.connect().await;
    sql_query("CREATE TABLE kept (n int)")
        .execute(&mut connection)
        .await
        .unwrap();
    alive().await.unwrap();

    let shown =
        sql_query("DO $$ BEGIN ASSERT current_setting('synchronous_commit') = 'on'; END $$");
    shown.execute(&mut database.connect().await).await.unwrap();
    servers.crash(Server::Postgres).await;
    assert!(alive().await.is_err());
    servers.resume(Server::Postgres).await;
    eventually(LONG, &alive).await;
    servers.stop(Server::Redis).await;
    assert!(alive().await.is_err());
    servers.restart(Server::Redis).await;
    eventually(LONG, &alive).await;

    let mut connection = database.connect().await;
    let kept = sql_query("DELETE FROM kept")
        .execute(&mut connection)
        .await
        .unwrap();
    assert!(kept >= 3, "{kept} rows were kept");
}
