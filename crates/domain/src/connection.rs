//! Connections: the WhatsApp numbers that clients have linked, what they want of them and how they are.
//!
//! The API writes what is desired; the gateway that holds the session writes the status.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{Double, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use thiserror::Error;
use uuid::Uuid;

use crate::event_type::EventType;
use crate::ids;
use crate::inbox::{self, Notice};
use crate::phone::Phone;
use crate::schema::whatsapp_connections as connections;
use crate::statement::Statement;

/// How a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Connected,
    Reconnecting,
    Disconnected,
    LoggedOut,
}

/// How a new device is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    Qr,
    Code,
}

/// What a client wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    Connected,
    Disconnected,
    LoggedOut,
}

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = connections, check_for_backend(diesel::pg::Pg))]
pub struct Connection {
    pub id: Uuid,
    pub client_id: i32,
    pub user_id: Uuid,
    pub phone_number: String,
    pub phone_key: String,
    pub pairing: String,
    pub desired: String,
    pub status: String,
    pub reason: Option<String>,
    pub transition: i64,
    pub jid: Option<String>,
    pub lid: Option<String>,
    pub qr_code: Option<String>,
    pub pairing_code: Option<String>,
    pub code_expires_at: Option<DateTime<Utc>>,
    pub last_update: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub deleted_at: Option<DateTime<Utc>>,
}

/// Why a number cannot be connected for that user.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("this user's session is connected already")]
    AlreadyConnected,
    #[error("the number has a live connection under another user_id")]
    NumberTaken,
    #[error("this user's session is linked to another number: log it out first")]
    OtherNumber,
    #[error(transparent)]
    Query(#[from] Error),
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Disconnected => "disconnected",
            Self::LoggedOut => "logged_out",
        }
    }

    /// The event that tells of the change to this status.
    const fn event(self) -> EventType {
        match self {
            Self::Connected => EventType::ConnectionOpen,
            Self::Reconnecting | Self::Disconnected => EventType::ConnectionClosed,
            Self::LoggedOut => EventType::ConnectionLoggedOut,
        }
    }
}

impl Pairing {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qr => "qr",
            Self::Code => "code",
        }
    }
}

impl Desired {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::LoggedOut => "logged_out",
        }
    }

    /// The status of a connection that is as desired.
    const fn status(self) -> Status {
        match self {
            Self::Connected => Status::Connected,
            Self::Disconnected => Status::Disconnected,
            Self::LoggedOut => Status::LoggedOut,
        }
    }
}

impl Connection {
    /// Asks for a session of that number for that user, new or again.
    pub async fn connect(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        user_id: Uuid,
        phone: &Phone,
        pairing: Pairing,
    ) -> Result<Self, ConnectError> {
        loop {
            let connected = conn
                .transaction(async |conn| {
                    match Self::of_user_locked(conn, client_id, user_id).await? {
                        Some(found) => found.reconnect(conn, phone, pairing).await,
                        None => Ok(Self::insert(conn, client_id, user_id, phone, pairing).await?),
                    }
                })
                .await;
            match connected {
                Err(ConnectError::Query(Error::DatabaseError(
                    DatabaseErrorKind::UniqueViolation,
                    info,
                ))) => match info.constraint_name() {
                    Some("whatsapp_connections_live_number") => {
                        return Err(ConnectError::NumberTaken);
                    }
                    // Another request made this user's connection between the look and the insert:
                    // the next look finds it.
                    _ => continue,
                },
                other => return other,
            }
        }
    }

    async fn of_user_locked(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        user_id: Uuid,
    ) -> QueryResult<Option<Self>> {
        connections::table
            .filter(connections::client_id.eq(client_id))
            .filter(connections::user_id.eq(user_id))
            .filter(connections::deleted_at.is_null())
            .select(Self::as_select())
            .for_update()
            .first(conn)
            .await
            .optional()
    }

    async fn reconnect(
        self,
        conn: &mut AsyncPgConnection,
        phone: &Phone,
        pairing: Pairing,
    ) -> Result<Self, ConnectError> {
        if self.is(Desired::Connected) && self.status == Status::Connected.as_str() {
            return Err(ConnectError::AlreadyConnected);
        }
        let same_number = self.phone_key == phone.key();
        if self.jid.is_some() && !same_number {
            return Err(ConnectError::OtherNumber);
        }
        let number = match same_number {
            true => self.phone_number.as_str(),
            false => {
                self.forget_code(conn).await?;
                phone.as_str()
            }
        };
        Ok(diesel::update(connections::table.find(self.id))
            .set((
                connections::phone_number.eq(number),
                connections::phone_key.eq(phone.key()),
                connections::pairing.eq(pairing.as_str()),
                connections::desired.eq(Desired::Connected.as_str()),
                connections::status.eq(Status::Reconnecting.as_str()),
                connections::reason.eq(None::<String>),
                connections::last_update.eq(diesel::dsl::now),
            ))
            .returning(Self::as_returning())
            .get_result(conn)
            .await?)
    }

    /// A code that is shown is good for the number that it was made for.
    async fn forget_code(&self, conn: &mut AsyncPgConnection) -> QueryResult<usize> {
        diesel::update(connections::table.find(self.id))
            .set((
                connections::qr_code.eq(None::<String>),
                connections::pairing_code.eq(None::<String>),
                connections::code_expires_at.eq(None::<DateTime<Utc>>),
            ))
            .execute(conn)
            .await
    }

    async fn insert(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        user_id: Uuid,
        phone: &Phone,
        pairing: Pairing,
    ) -> QueryResult<Self> {
        diesel::insert_into(connections::table)
            .values((
                connections::id.eq(Uuid::now_v7()),
                connections::client_id.eq(client_id),
                connections::user_id.eq(user_id),
                connections::phone_number.eq(phone.as_str()),
                connections::phone_key.eq(phone.key()),
                connections::pairing.eq(pairing.as_str()),
                connections::desired.eq(Desired::Connected.as_str()),
                connections::status.eq(Status::Reconnecting.as_str()),
            ))
            .returning(Self::as_returning())
            .get_result(conn)
            .await
    }

    /// The user's connection as clients see it: without a code that has expired.
    pub async fn of_user(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        user_id: Uuid,
    ) -> QueryResult<Option<Self>> {
        let found: Option<(Self, Option<bool>)> = connections::table
            .filter(connections::client_id.eq(client_id))
            .filter(connections::user_id.eq(user_id))
            .filter(connections::deleted_at.is_null())
            .select((
                Self::as_select(),
                connections::code_expires_at.gt(diesel::dsl::now),
            ))
            .first(conn)
            .await
            .optional()?;
        Ok(found.map(|(connection, code_is_good)| match code_is_good {
            Some(true) => connection,
            _ => Self {
                qr_code: None,
                pairing_code: None,
                ..connection
            },
        }))
    }

    pub async fn list(conn: &mut AsyncPgConnection, client_id: i32) -> QueryResult<Vec<Self>> {
        connections::table
            .filter(connections::client_id.eq(client_id))
            .filter(connections::deleted_at.is_null())
            .order((connections::created_at.desc(), connections::id.desc()))
            .select(Self::as_select())
            .load(conn)
            .await
    }

    /// Asks for another state. `None` when the client has no such connection.
    ///
    /// A log-out that was asked for, or has happened, is not taken back by a wish to disconnect.
    pub async fn desire(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        user_id: Uuid,
        desired: Desired,
    ) -> QueryResult<Option<Self>> {
        diesel::update(connections::table)
            .filter(connections::client_id.eq(client_id))
            .filter(connections::user_id.eq(user_id))
            .filter(connections::deleted_at.is_null())
            .set(
                connections::desired.eq(diesel::dsl::case_when(
                    connections::desired.eq(Desired::LoggedOut.as_str()).and(
                        desired
                            .as_str()
                            .into_sql::<Text>()
                            .eq(Desired::Disconnected.as_str()),
                    ),
                    Desired::LoggedOut.as_str().into_sql::<Text>(),
                )
                .otherwise(desired.as_str().into_sql::<Text>())),
            )
            .returning(Self::as_returning())
            .get_result(conn)
            .await
            .optional()
    }

    /// Asks for the device to be unlinked and the connection to go. `None` when the client has no such
    /// connection.
    pub async fn delete(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        id: Uuid,
    ) -> QueryResult<Option<Self>> {
        diesel::update(connections::table.find(id))
            .filter(connections::client_id.eq(client_id))
            .filter(connections::deleted_at.is_null())
            .set((
                connections::desired.eq(Desired::LoggedOut.as_str()),
                connections::deleted_at.eq(diesel::dsl::now),
            ))
            .returning(Self::as_returning())
            .get_result(conn)
            .await
            .optional()
    }

    /// The gateway's work: connections that want a session, or are not yet what is desired of them.
    pub async fn to_reconcile(conn: &mut AsyncPgConnection) -> QueryResult<Vec<Self>> {
        connections::table
            .filter(
                connections::desired
                    .eq(Desired::Connected.as_str())
                    .or(connections::status.ne(connections::desired))
                    .or(connections::deleted_at.is_not_null()),
            )
            .order(connections::created_at)
            .select(Self::as_select())
            .load(conn)
            .await
    }

    /// The current row, also of a connection that is being deleted.
    pub async fn find(conn: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Self>> {
        connections::table
            .find(id)
            .select(Self::as_select())
            .first(conn)
            .await
            .optional()
    }

    /// Forgets whose device was linked, with the keys of which this goes: the number is free to change.
    pub async fn forget_device(conn: &mut AsyncPgConnection, id: Uuid) -> QueryResult<usize> {
        diesel::update(connections::table.find(id))
            .set((
                connections::jid.eq(None::<String>),
                connections::lid.eq(None::<String>),
            ))
            .execute(conn)
            .await
    }

    /// Keeps whose device was linked.
    pub async fn identify(
        conn: &mut AsyncPgConnection,
        id: Uuid,
        jid: &str,
        lid: Option<&str>,
    ) -> QueryResult<usize> {
        diesel::update(connections::table.find(id))
            .set((connections::jid.eq(jid), connections::lid.eq(lid)))
            .execute(conn)
            .await
    }

    /// Writes a change of status and tells the number's webhooks of it, in one commit. A status and
    /// reason that stand already change nothing. Returns the new events' ids, to be rung.
    ///
    /// `Disconnected` and `LoggedOut` also end what is desired, so that a session that was ended from
    /// outside is not begun again, but leave a log-out that was asked for to be done; `LoggedOut` forgets
    /// whose device it was.
    pub async fn transition(
        conn: &mut AsyncPgConnection,
        id: Uuid,
        status: Status,
        reason: Option<&str>,
    ) -> QueryResult<Vec<Uuid>> {
        conn.transaction(async |conn| {
            let changed: Option<Changed> = Statement::new(
                "UPDATE whatsapp_connections
                 SET status = ?, reason = ?, transition = transition + 1, last_update = now(),
                     qr_code = NULL, pairing_code = NULL, code_expires_at = NULL
                 WHERE id = ? AND (status, reason) IS DISTINCT FROM (?, ?)
                 RETURNING client_id, phone_number, transition, last_update AS at",
            )
            .bind::<Text, _>(status.as_str())
            .bind::<Nullable<Text>, _>(reason)
            .bind::<SqlUuid, _>(id)
            .bind::<Text, _>(status.as_str())
            .bind::<Nullable<Text>, _>(reason)
            .get_result(conn)
            .await
            .optional()?;
            let Some(changed) = changed else {
                return Ok(Vec::new());
            };
            if matches!(status, Status::Disconnected | Status::LoggedOut) {
                diesel::update(connections::table.find(id))
                    .filter(connections::desired.ne(Desired::LoggedOut.as_str()))
                    .set(connections::desired.eq(status.as_str()))
                    .execute(conn)
                    .await?;
            }
            if status == Status::LoggedOut {
                Self::forget_device(conn, id).await?;
            }
            let metadata = serde_json::json!({"v": 1, "status": status.as_str(), "reason": reason});
            inbox::announce(
                conn,
                &changed.notice(id, status.event(), metadata.to_string()),
            )
            .await
        })
        .await
    }

    /// Writes, as [`Connection::transition`] does, that what was desired is so. Changes nothing when
    /// something else is desired by now.
    pub async fn fulfil(
        conn: &mut AsyncPgConnection,
        id: Uuid,
        desired: Desired,
        reason: Option<&str>,
    ) -> QueryResult<Vec<Uuid>> {
        conn.transaction(async |conn| {
            let current: Option<String> = connections::table
                .find(id)
                .select(connections::desired)
                .for_update()
                .first(conn)
                .await
                .optional()?;
            match current.as_deref() == Some(desired.as_str()) {
                true => Self::transition(conn, id, desired.status(), reason).await,
                false => Ok(Vec::new()),
            }
        })
        .await
    }

    /// Shows a QR code that is good for `seconds`, and tells the number's webhooks of it. Returns the
    /// new events' ids, to be rung.
    pub async fn show_qr(
        conn: &mut AsyncPgConnection,
        id: Uuid,
        code: &str,
        seconds: f64,
    ) -> QueryResult<Vec<Uuid>> {
        conn.transaction(async |conn| {
            let changed: Option<Changed> = Statement::new(
                "UPDATE whatsapp_connections
                 SET qr_code = ?, code_expires_at = now() + make_interval(secs => ?),
                     transition = transition + 1
                 WHERE id = ?
                 RETURNING client_id, phone_number, transition, now() AS at",
            )
            .bind::<Text, _>(code)
            .bind::<Double, _>(seconds)
            .bind::<SqlUuid, _>(id)
            .get_result(conn)
            .await
            .optional()?;
            let Some(changed) = changed else {
                return Ok(Vec::new());
            };
            let metadata = serde_json::json!({"v": 1, "qr": code, "expires_in_seconds": seconds});
            let notice = changed.notice(id, EventType::ConnectionQr, metadata.to_string());
            inbox::announce(conn, &notice).await
        })
        .await
    }

    /// Removes the row of a connection whose device is unlinked.
    pub async fn remove(conn: &mut AsyncPgConnection, id: Uuid) -> QueryResult<usize> {
        diesel::delete(connections::table.find(id))
            .filter(connections::deleted_at.is_not_null())
            .execute(conn)
            .await
    }

    pub fn is(&self, desired: Desired) -> bool {
        self.desired == desired.as_str()
    }
}

#[derive(QueryableByName)]
struct Changed {
    #[diesel(sql_type = diesel::sql_types::Integer)]
    client_id: i32,
    #[diesel(sql_type = Text)]
    phone_number: String,
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    transition: i64,
    #[diesel(sql_type = diesel::sql_types::Timestamptz)]
    at: DateTime<Utc>,
}

impl Changed {
    fn notice(self, connection_id: Uuid, event_type: EventType, metadata: String) -> Notice {
        Notice {
            client_id: self.client_id,
            connection_id,
            phone_number: self.phone_number,
            event_type,
            source_id: ids::transition(connection_id, self.transition, self.at),
            metadata,
            at: self.at,
        }
    }
}
