//! Clients (tenants) and the tokens by which they prove who they are.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use secrecy::SecretString;
use serde::Serialize;
use uuid::Uuid;

use crate::schema::{client_tokens, clients};
use crate::scope::Scope;
use crate::token;

/// How often it is noted that a token is used.
const NOTED: TimeDelta = TimeDelta::minutes(1);

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Queryable, Selectable)]
#[diesel(table_name = clients, check_for_backend(diesel::pg::Pg))]
pub struct Client {
    pub id: i32,
    pub name: String,
    pub status: String,
    pub created_at: DateTime<Utc>,
    /// Deliveries a second over all of its webhooks; `None`: as fast as they go.
    pub rate_limit_per_second: Option<i32>,
}

/// A token as it may be shown: the token itself is printed once and never again.
#[derive(Debug, Clone, Serialize, Queryable, Selectable)]
#[diesel(table_name = client_tokens, check_for_backend(diesel::pg::Pg))]
pub struct Token {
    pub id: Uuid,
    pub client_id: i32,
    pub name: String,
    pub created_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
    /// [`Scope`]s, by name.
    pub scopes: Vec<String>,
    /// Refused from then on.
    pub expires_at: Option<DateTime<Utc>>,
    /// To the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A token that is to be made.
#[derive(Debug, Clone)]
pub struct NewToken<'a> {
    pub client_id: i32,
    pub name: &'a str,
    pub token: &'a SecretString,
    /// At least one.
    pub scopes: &'a [Scope],
    pub expires_at: Option<DateTime<Utc>>,
}

impl Client {
    /// Makes a client. A name that is taken is a unique violation.
    pub async fn insert(conn: &mut AsyncPgConnection, name: &str) -> QueryResult<Self> {
        diesel::insert_into(clients::table)
            .values(clients::name.eq(name))
            .returning(Self::as_returning())
            .get_result(conn)
            .await
    }

    /// Finds the client of that name, or makes it.
    pub async fn ensure(conn: &mut AsyncPgConnection, name: &str) -> QueryResult<Self> {
        diesel::insert_into(clients::table)
            .values(clients::name.eq(name))
            .on_conflict(clients::name)
            .do_update()
            .set(clients::status.eq("active"))
            .returning(Self::as_returning())
            .get_result(conn)
            .await
    }

    pub async fn find(conn: &mut AsyncPgConnection, id: i32) -> QueryResult<Option<Self>> {
        clients::table
            .find(id)
            .select(Self::as_select())
            .first(conn)
            .await
            .optional()
    }

    pub async fn list(conn: &mut AsyncPgConnection) -> QueryResult<Vec<Self>> {
        clients::table
            .order(clients::id)
            .select(Self::as_select())
            .load(conn)
            .await
    }

    /// Whose token this is: `None` for one that is unknown, revoked, expired, or of an inactive client.
    pub async fn authenticate(
        conn: &mut AsyncPgConnection,
        token: &SecretString,
    ) -> QueryResult<Option<(Self, Token)>> {
        let expires_at = client_tokens::expires_at;
        clients::table
            .inner_join(client_tokens::table.on(client_tokens::client_id.eq(clients::id)))
            .filter(client_tokens::token_hash.eq(token::hash(token)))
            .filter(client_tokens::revoked_at.is_null())
            .filter(
                expires_at
                    .is_null()
                    .or(expires_at.assume_not_null().gt(now)),
            )
            .filter(clients::status.eq("active"))
            .select((Self::as_select(), Token::as_select()))
            .first(conn)
            .await
            .optional()
    }

    /// Limits the deliveries to the client of that name, or with `None` no longer; what a dispatcher knows
    /// of a webhook it looks up anew after some seconds. `None` when there is no such client.
    pub async fn limit(
        conn: &mut AsyncPgConnection,
        name: &str,
        rate_limit_per_second: Option<i32>,
    ) -> QueryResult<Option<Self>> {
        diesel::update(clients::table.filter(clients::name.eq(name)))
            .set(clients::rate_limit_per_second.eq(rate_limit_per_second))
            .returning(Self::as_returning())
            .get_result(conn)
            .await
            .optional()
    }

    /// Refuses the client's tokens from now on. `None` when there is no such client.
    pub async fn deactivate(conn: &mut AsyncPgConnection, id: i32) -> QueryResult<Option<Self>> {
        diesel::update(clients::table.find(id))
            .set(clients::status.eq("inactive"))
            .returning(Self::as_returning())
            .get_result(conn)
            .await
            .optional()
    }
}

impl<'a> NewToken<'a> {
    /// One that may do all, for ever.
    pub const fn of(client_id: i32, name: &'a str, token: &'a SecretString) -> Self {
        Self {
            client_id,
            name,
            token,
            scopes: &Scope::ALL,
            expires_at: None,
        }
    }
}

impl Token {
    /// Keeps the hash of a token. A token that is known already stays its first owner's.
    pub async fn insert(conn: &mut AsyncPgConnection, new: &NewToken<'_>) -> QueryResult<Self> {
        let scopes: Vec<&str> = new.scopes.iter().map(|scope| scope.as_str()).collect();
        diesel::insert_into(client_tokens::table)
            .values((
                client_tokens::client_id.eq(new.client_id),
                client_tokens::name.eq(new.name),
                client_tokens::token_hash.eq(token::hash(new.token)),
                client_tokens::scopes.eq(scopes),
                client_tokens::expires_at.eq(new.expires_at),
            ))
            .returning(Self::as_returning())
            .get_result(conn)
            .await
    }

    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|name| name == scope.as_str())
    }

    /// Notes that the token is used, unless that was noted within the last minute.
    pub async fn note_use(&self, conn: &mut AsyncPgConnection) -> QueryResult<()> {
        let noted = self.last_used_at.map(|at| Utc::now() - at);
        if noted.is_some_and(|since| since < NOTED) {
            return Ok(());
        }
        diesel::update(client_tokens::table.find(self.id))
            .set(client_tokens::last_used_at.eq(now))
            .execute(conn)
            .await
            .map(drop)
    }

    pub async fn list(conn: &mut AsyncPgConnection, client_id: i32) -> QueryResult<Vec<Self>> {
        client_tokens::table
            .filter(client_tokens::client_id.eq(client_id))
            .order(client_tokens::created_at)
            .select(Self::as_select())
            .load(conn)
            .await
    }

    /// Refuses the token from now on. `None` when there is no such token, or it was revoked before.
    pub async fn revoke(conn: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Self>> {
        diesel::update(client_tokens::table.find(id))
            .filter(client_tokens::revoked_at.is_null())
            .set(client_tokens::revoked_at.eq(now))
            .returning(Self::as_returning())
            .get_result(conn)
            .await
            .optional()
    }
}
