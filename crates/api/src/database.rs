//! The database, once it is known to be the one that this build needs.
//!
//! A deployment may start the API before PostgreSQL, or before `recado-api migrate`: until both are
//! there every request gets a 503, and then, without a restart, its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool::Object;
use domain::client::{Client, NewToken, Token};
use domain::migration::{self, SchemaError};
use runtime::postgres::Pool;
use secrecy::SecretString;

use crate::error::ApiError;

pub(crate) type Connection = Object<AsyncPgConnection>;

/// Clones are one and the same.
#[derive(Clone)]
pub(crate) struct Database(Arc<Inner>);

struct Inner {
    pool: Pool,
    dev_token: Option<SecretString>,
    /// The schema was seen to be new enough, and the development client is there.
    ready: AtomicBool,
}

impl Database {
    pub(crate) fn new(pool: Pool, dev_token: Option<SecretString>) -> Self {
        Self(Arc::new(Inner {
            pool,
            dev_token,
            ready: AtomicBool::new(false),
        }))
    }

    pub(crate) fn pool(&self) -> Pool {
        self.0.pool.clone()
    }

    /// A connection to a database that is ready.
    pub(crate) async fn connection(&self) -> Result<Connection, ApiError> {
        let mut conn = self.0.pool.get().await?;
        if !self.0.ready.load(Ordering::Relaxed) {
            self.prepare(&mut conn).await?;
        }
        Ok(conn)
    }

    /// What keeps requests from being served, if anything; for `/readyz`.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let mut conn = self.0.pool.get().await.map_err(|error| error.to_string())?;
        let prepared = self.prepare(&mut conn).await;
        self.0.ready.store(prepared.is_ok(), Ordering::Relaxed);
        prepared.map_err(|error| error.to_string())
    }

    async fn prepare(&self, conn: &mut AsyncPgConnection) -> Result<(), SchemaError> {
        migration::check(conn).await?;
        if self.0.ready.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(token) = &self.0.dev_token {
            ensure_dev_client(conn, token).await?;
        }
        self.0.ready.store(true, Ordering::Relaxed);
        tracing::info!("the database is ready");
        Ok(())
    }
}

/// The client `dev` with this token, unless the token is somebody's already.
async fn ensure_dev_client(
    conn: &mut AsyncPgConnection,
    token: &SecretString,
) -> Result<(), Error> {
    let client = Client::ensure(conn, "dev").await?;
    match Token::insert(conn, &NewToken::of(client.id, "DEV_CLIENT_TOKEN", token)).await {
        Ok(_) | Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(()),
        Err(error) => Err(error),
    }
}
