//! Connections: the WhatsApp numbers that clients have linked, what they want of them and how they are.
//!
//! The API writes what is desired; the gateway that holds the session writes the status (`report`).

mod report;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::Text;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use thiserror::Error;
use uuid::Uuid;

use crate::event_type::EventType;
use crate::phone::Phone;
use crate::schema::whatsapp_connections as connections;

pub use self::report::Code;

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
    /// The gateway that holds the session.
    pub owner: Option<Uuid>,
    /// Counts the changes of owner: see [`crate::lease`].
    pub epoch: i64,
    /// When it is tried again, where WhatsApp has turned it away for a while.
    pub retry_at: Option<DateTime<Utc>>,
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
            false => phone.as_str(),
        };
        if !same_number || self.pairing != pairing.as_str() {
            self.forget_code(conn).await?;
        }
        Ok(diesel::update(connections::table.find(self.id))
            .set((
                connections::phone_number.eq(number),
                connections::phone_key.eq(phone.key()),
                connections::pairing.eq(pairing.as_str()),
                connections::desired.eq(Desired::Connected.as_str()),
                connections::status.eq(Status::Reconnecting.as_str()),
                connections::reason.eq(None::<String>),
                connections::retry_at.eq(None::<DateTime<Utc>>),
                connections::last_update.eq(diesel::dsl::now),
            ))
            .returning(Self::as_returning())
            .get_result(conn)
            .await?)
    }

    /// A code that is shown is good for the number that it was made for, and is not one of the other kind.
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

    /// The current row, also of a connection that is being deleted.
    pub async fn find(conn: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Self>> {
        connections::table
            .find(id)
            .select(Self::as_select())
            .first(conn)
            .await
            .optional()
    }

    /// How its device is to be linked.
    pub fn pairing(&self) -> Pairing {
        match self.pairing == Pairing::Code.as_str() {
            true => Pairing::Code,
            false => Pairing::Qr,
        }
    }

    pub fn is(&self, desired: Desired) -> bool {
        self.desired == desired.as_str()
    }
}
