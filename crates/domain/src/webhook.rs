//! Webhooks: where a client wants the events of one of its numbers.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use secrecy::SecretString;
use uuid::Uuid;

use crate::dead_letter;
use crate::event_type::{EventType, covers};
use crate::health;
use crate::keyring::{Keyring, SealError};
use crate::parking;
use crate::phone::Phone;
use crate::schema::whatsapp_webhooks as webhooks;
use crate::sealed::{WEBHOOK_HEADERS, WEBHOOK_SECRET};
use crate::statement::Statement;

#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = webhooks, check_for_backend(diesel::pg::Pg))]
pub struct Webhook {
    pub id: Uuid,
    pub client_id: i32,
    pub phone_number: String,
    pub webhook_url: String,
    pub is_active: bool,
    pub status: String,
    pub failure_count: i32,
    pub max_retries: i32,
    pub last_error: Option<String>,
    pub last_success_at: Option<DateTime<Utc>>,
    pub last_attempt_at: Option<DateTime<Utc>>,
    pub event_types: Vec<String>,
    pub metadata: serde_json::Value,
    pub secret: Vec<u8>,
    pub previous_secret: Option<Vec<u8>>,
    pub previous_secret_expires_at: Option<DateTime<Utc>>,
    /// Sealed; see [`open_headers`].
    pub custom_headers: Option<Vec<u8>>,
    pub rate_limit_per_second: Option<i32>,
    pub max_in_flight: i32,
    pub batch_max_events: Option<i32>,
    pub batch_max_wait_ms: Option<i32>,
    pub ordered: bool,
    pub allowed_ip_ranges: Vec<String>,
    /// Of the largest file that goes into the delivery itself; 0 is none.
    pub inline_media_bytes: i32,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What may be set on a webhook. `None` leaves it as it is, or at its default in a new one.
#[derive(Debug, Clone, Default, AsChangeset)]
#[diesel(table_name = webhooks)]
pub struct Changes {
    pub webhook_url: Option<String>,
    pub is_active: Option<bool>,
    pub max_retries: Option<i32>,
    pub event_types: Option<Vec<String>>,
    pub metadata: Option<serde_json::Value>,
    /// Sealed by [`seal_headers`]. Here and in the next ones `Some(None)` takes away what there is.
    pub custom_headers: Option<Option<Vec<u8>>>,
    pub rate_limit_per_second: Option<Option<i32>>,
    pub max_in_flight: Option<i32>,
    /// Both or none.
    pub batch_max_events: Option<Option<i32>>,
    pub batch_max_wait_ms: Option<Option<i32>>,
    pub ordered: Option<bool>,
    pub allowed_ip_ranges: Option<Vec<String>>,
    pub inline_media_bytes: Option<i32>,
}

/// How many events become dead letters within the deletion of their webhook.
const BURIED_AT_ONCE: i64 = 1000;

/// A row of `list`'s cursor: newest first, ties by id.
pub type Cursor = (DateTime<Utc>, Uuid);

/// Seals a signing secret for the webhook's row.
pub fn seal_secret(keyring: &Keyring, id: Uuid, secret: &SecretString) -> Vec<u8> {
    WEBHOOK_SECRET.seal_text(keyring, &id.to_string(), secret)
}

/// Opens a signing secret of the webhook's row, the present or the previous one.
pub fn open_secret(keyring: &Keyring, id: Uuid, sealed: &[u8]) -> Result<SecretString, SealError> {
    WEBHOOK_SECRET.open_text(keyring, &id.to_string(), sealed)
}

/// Names and values of a webhook's own headers.
pub type Headers = BTreeMap<String, String>;

/// Seals a webhook's own headers, values and names, for its row.
pub fn seal_headers(keyring: &Keyring, id: Uuid, headers: &Headers) -> Vec<u8> {
    let text = serde_json::to_vec(headers).expect("a map of texts is JSON");
    WEBHOOK_HEADERS.seal(keyring, &id.to_string(), &text)
}

/// Opens the headers of the webhook's row.
pub fn open_headers(keyring: &Keyring, id: Uuid, sealed: &[u8]) -> Result<Headers, SealError> {
    let opened = WEBHOOK_HEADERS.open(keyring, &id.to_string(), sealed)?;
    serde_json::from_slice(&opened).map_err(|_| SealError::Form)
}

impl Webhook {
    /// Registers the webhook of a number, or updates the one that is there: active again, its failures
    /// forgotten, events that waited for it flow. `true` when it is new; `secret` is used only then.
    pub async fn register(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        id: Uuid,
        phone: &Phone,
        changes: &Changes,
        secret: &[u8],
    ) -> QueryResult<(Self, bool)> {
        loop {
            let registered = Self::register_once(conn, client_id, id, phone, changes, secret);
            if let Some(registered) = registered.await? {
                return Ok(registered);
            }
        }
    }

    /// `None` when the webhook that was there has been deleted meanwhile.
    async fn register_once(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        id: Uuid,
        phone: &Phone,
        changes: &Changes,
        secret: &[u8],
    ) -> QueryResult<Option<(Self, bool)>> {
        conn.transaction(async |conn| {
            let inserted = diesel::insert_into(webhooks::table)
                .values((
                    webhooks::id.eq(id),
                    webhooks::client_id.eq(client_id),
                    webhooks::phone_number.eq(phone.as_str()),
                    webhooks::phone_key.eq(phone.key()),
                    webhooks::webhook_url.eq(changes.webhook_url.as_deref().unwrap_or_default()),
                    webhooks::secret.eq(secret),
                ))
                .on_conflict_do_nothing()
                .execute(conn)
                .await?;
            let row: Option<Uuid> = webhooks::table
                .filter(webhooks::client_id.eq(client_id))
                .filter(webhooks::phone_key.eq(phone.key()))
                .filter(webhooks::deleted_at.is_null())
                .select(webhooks::id)
                .for_no_key_update()
                .first(conn)
                .await
                .optional()?;
            let Some(row) = row else { return Ok(None) };
            let changes = Changes {
                is_active: Some(true),
                ..changes.clone()
            };
            let webhook = Self::set(conn, row, &changes).await?;
            Ok(Some((webhook, inserted == 1)))
        })
        .await
    }

    /// Whose webhook it is, unless it was deleted. For operators alone: it takes no client's id.
    pub async fn client_of(conn: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<i32>> {
        webhooks::table
            .find(id)
            .filter(webhooks::deleted_at.is_null())
            .select(webhooks::client_id)
            .first(conn)
            .await
            .optional()
    }

    pub async fn find(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        id: Uuid,
    ) -> QueryResult<Option<Self>> {
        webhooks::table
            .find(id)
            .filter(webhooks::client_id.eq(client_id))
            .filter(webhooks::deleted_at.is_null())
            .select(Self::as_select())
            .first(conn)
            .await
            .optional()
    }

    /// Newest first, at most `limit`, from behind `after`.
    pub async fn list(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        limit: i64,
        after: Option<Cursor>,
    ) -> QueryResult<Vec<Self>> {
        let mut query = webhooks::table
            .filter(webhooks::client_id.eq(client_id))
            .filter(webhooks::deleted_at.is_null())
            .order((webhooks::created_at.desc(), webhooks::id.desc()))
            .limit(limit)
            .select(Self::as_select())
            .into_boxed();
        if let Some((created_at, id)) = after {
            query = query.filter(
                webhooks::created_at
                    .lt(created_at)
                    .or(webhooks::created_at.eq(created_at).and(webhooks::id.lt(id))),
            );
        }
        query.load(conn).await
    }

    /// Changes what is given. To set `is_active` also forgets the failures and lets the events that
    /// waited flow. `None` when the client has no such webhook.
    pub async fn update(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        id: Uuid,
        changes: &Changes,
    ) -> QueryResult<Option<Self>> {
        conn.transaction(async |conn| {
            let found = webhooks::table
                .find(id)
                .filter(webhooks::client_id.eq(client_id))
                .filter(webhooks::deleted_at.is_null())
                .select(webhooks::id)
                .for_no_key_update()
                .first::<Uuid>(conn)
                .await
                .optional()?;
            match found {
                None => Ok(None),
                Some(id) => Self::set(conn, id, changes).await.map(Some),
            }
        })
        .await
    }

    /// The row is locked by the caller's transaction.
    async fn set(conn: &mut AsyncPgConnection, id: Uuid, changes: &Changes) -> QueryResult<Self> {
        if changes.ordered == Some(false) {
            parking::call_all(conn, id).await?;
        }
        let touched = webhooks::updated_at.eq(diesel::dsl::now);
        let row = webhooks::table.find(id);
        if changes.is_active != Some(true) {
            return diesel::update(row)
                .set((changes, touched))
                .returning(Self::as_returning())
                .get_result(conn)
                .await;
        }
        diesel::update(row)
            .set((
                changes,
                touched,
                webhooks::status.eq("active"),
                webhooks::failure_count.eq(0),
                webhooks::last_error.eq(None::<String>),
            ))
            .execute(conn)
            .await?;
        health::forget(conn, id).await?;
        row.select(Self::as_select()).first(conn).await
    }

    /// Signs with `secret` from now on, and with the secret before it too for `overlap_seconds`.
    pub async fn rotate_secret(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        id: Uuid,
        secret: &[u8],
        overlap_seconds: i32,
    ) -> QueryResult<bool> {
        let rotated = Statement::new(
            "UPDATE whatsapp_webhooks SET previous_secret = secret, secret = ?,
                 previous_secret_expires_at = now() + make_interval(secs => ?), updated_at = now()
             WHERE id = ? AND client_id = ? AND deleted_at IS NULL",
        )
        .bind::<diesel::sql_types::Binary, _>(secret)
        .bind::<diesel::sql_types::Double, _>(f64::from(overlap_seconds))
        .bind::<SqlUuid, _>(id)
        .bind::<diesel::sql_types::Integer, _>(client_id)
        .execute(conn)
        .await?;
        Ok(rotated == 1)
    }

    /// Deletes the webhook; its pending events become dead letters, the rest of very many soon
    /// afterwards. `false` when there is none.
    pub async fn delete(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        id: Uuid,
    ) -> QueryResult<bool> {
        conn.transaction(async |conn| {
            let deleted = diesel::update(webhooks::table.find(id))
                .filter(webhooks::client_id.eq(client_id))
                .filter(webhooks::deleted_at.is_null())
                .set((
                    webhooks::deleted_at.eq(diesel::dsl::now),
                    webhooks::is_active.eq(false),
                ))
                .execute(conn)
                .await?;
            if deleted == 0 {
                return Ok(false);
            }
            // What is left out, because it is locked, not committed yet, or too much to hold up the webhook's
            // recorders for, comes due, or is parked: the poller buries it.
            parking::look_now(conn, id).await?;
            dead_letter::bury_pending(conn, id, dead_letter::WEBHOOK_DELETED, BURIED_AT_ONCE)
                .await?;
            Ok(true)
        })
        .await
    }
}

/// An active webhook of the number and client of a connection.
#[derive(Debug, Clone, QueryableByName)]
pub(crate) struct Listener {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) connection_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub(crate) webhook_id: Uuid,
    #[diesel(sql_type = Array<Text>)]
    event_types: Vec<String>,
    #[diesel(sql_type = Bool)]
    pub(crate) ordered: bool,
}

impl Listener {
    pub(crate) fn hears(&self, event: EventType) -> bool {
        any_covers(&self.event_types, event)
    }
}

pub(crate) fn any_covers(filters: &[String], event: EventType) -> bool {
    filters.iter().any(|filter| covers(filter, event))
}

/// The client's active webhooks but one, with their filters.
pub(crate) async fn others(
    conn: &mut AsyncPgConnection,
    client_id: i32,
    but: Uuid,
) -> QueryResult<Vec<(Uuid, Vec<String>)>> {
    webhooks::table
        .filter(webhooks::client_id.eq(client_id))
        .filter(webhooks::id.ne(but))
        .filter(webhooks::is_active)
        .filter(webhooks::deleted_at.is_null())
        .order((webhooks::created_at, webhooks::id))
        .select((webhooks::id, webhooks::event_types))
        .load(conn)
        .await
}

/// Who is to be told of what happens on these connections. Never crosses clients, also when two of
/// them have linked the same number.
pub(crate) async fn listening(
    conn: &mut AsyncPgConnection,
    connections: &[Uuid],
) -> QueryResult<Vec<Listener>> {
    Statement::new(
        // The connections first, once: the planner would look for them anew for each webhook.
        "WITH c AS MATERIALIZED (
             SELECT id, client_id, phone_key FROM whatsapp_connections WHERE id = ANY(?))
         SELECT c.id AS connection_id, w.id AS webhook_id, w.event_types, w.ordered
         FROM c JOIN whatsapp_webhooks w ON w.client_id = c.client_id AND w.phone_key = c.phone_key
         WHERE w.is_active AND w.deleted_at IS NULL
         ORDER BY w.created_at, w.id",
    )
    .bind::<Array<SqlUuid>, _>(connections)
    .load(conn)
    .await
}
