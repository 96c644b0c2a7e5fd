//! A PostgreSQL database per test: a copy of a template that has all migrations, which takes some
//! tens of milliseconds. The template is named by the migrations' content, so it is never stale.

mod template;

use std::fmt::Display;
use std::future::Future;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use runtime::config::DatabaseConfig;
use runtime::postgres::{self, Pool};
use uuid::Uuid;

use crate::shared::{Addresses, sibling};

/// Names of databases are this, the second of their creation, and something random.
const PREFIX: &str = "recado_test_";
/// After so long nobody can still be using a test's database.
const LEFTOVER: Duration = Duration::from_secs(3600);

/// A database of one test's own. Dropped with this value, except when the test panics: then it is
/// left for a look, and a later test drops it.
pub struct Database {
    name: String,
    url: String,
    admin_url: String,
    pool: Pool,
}

impl Database {
    /// A database with all migrations, on the shared server.
    pub async fn create() -> Self {
        Self::create_on(&Addresses::shared().await.database_url).await
    }

    /// A database without a single table, on the shared server.
    pub async fn create_empty() -> Self {
        Self::copy(&Addresses::shared().await.database_url, "template0").await
    }

    /// A database with all migrations, on the server of `admin_url`.
    pub async fn create_on(admin_url: &str) -> Self {
        let template = template::ensure(admin_url).await;
        Self::copy(admin_url, &template).await
    }

    async fn copy(admin_url: &str, template: &str) -> Self {
        let mut admin = connect(admin_url).await;
        drop_leftovers(&mut admin).await;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let name = format!("{PREFIX}{now}_{}", Uuid::new_v4().simple());
        let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
        admin
            .batch_execute(&create)
            .await
            .unwrap_or_else(|error| panic!("{create}: {error}"));
        let url = sibling(admin_url, &name);
        let mut config = config(&url);
        config.pool_size = 8;
        let pool = postgres::pool(&config).expect("a pool that connects to nothing yet");
        Self {
            name,
            url,
            admin_url: admin_url.to_owned(),
            pool,
        }
    }

    /// For `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A pool of eight connections; always the same one.
    pub fn pool(&self) -> Pool {
        self.pool.clone()
    }

    /// For what makes pools and connections of its own.
    pub fn config(&self) -> DatabaseConfig {
        config(&self.url)
    }

    /// A connection outside of the pool.
    pub async fn connect(&self) -> AsyncPgConnection {
        connect(&self.url).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("left for a look: {}", self.url);
            return;
        }
        let (admin_url, name) = (self.admin_url.clone(), self.name.clone());
        let dropped = elsewhere(async move {
            let mut admin = postgres::connect(&config(&admin_url)).await?;
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            anyhow::Ok(admin.batch_execute(&drop).await?)
        });
        if let Err(error) = dropped {
            eprintln!("{} could not be dropped: {error:#}", self.name);
        }
    }
}

#[derive(QueryableByName)]
struct Named {
    #[diesel(sql_type = Text)]
    datname: String,
}

/// Drops what tests left that failed or were killed an hour ago or earlier.
async fn drop_leftovers(admin: &mut AsyncPgConnection) {
    let list =
        format!("SELECT datname::text AS datname FROM pg_database WHERE datname LIKE '{PREFIX}%'");
    let all: Vec<Named> = sql_query(list)
        .load(admin)
        .await
        .expect("pg_database can be read");
    for Named { datname } in all {
        let born = datname
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('_').next()?.parse().ok());
        let born = UNIX_EPOCH + Duration::from_secs(born.unwrap_or(0));
        if born.elapsed().is_ok_and(|age| age > LEFTOVER) {
            // Another test may be dropping it at the same moment.
            let _ = admin
                .batch_execute(&format!("DROP DATABASE IF EXISTS {datname} WITH (FORCE)"))
                .await;
        }
    }
}

fn config(url: &str) -> DatabaseConfig {
    DatabaseConfig::from_url(url).unwrap_or_else(|error| panic!("{error}"))
}

async fn connect(url: &str) -> AsyncPgConnection {
    let connected = postgres::connect(&config(url)).await;
    connected.unwrap_or_else(|error| panic!("PostgreSQL for tests: {error}"))
}

/// Runs to its end on a thread and a runtime of its own, whatever runtime the test has, or none
/// any more.
fn elsewhere<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: Display + Send + 'static,
{
    let thread = thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(work)
    });
    thread.join().expect("the work returns its errors")
}
