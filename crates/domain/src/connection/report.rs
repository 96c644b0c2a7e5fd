//! What the gateway that holds a session writes into its connection's row. Where its lease is lost, nothing
//! is changed.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{Connection, Desired, Status};
use crate::event_type::EventType;
use crate::ids;
use crate::inbox::{self, Notice};
use crate::lease::Lease;
use crate::schema::whatsapp_connections as connections;
use crate::statement::Statement;

/// What a phone is given to link a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code<'a> {
    /// What is in the picture.
    Qr(&'a str),
    /// To be typed: `ABCD-EFGH`.
    Pairing(&'a str),
}

impl Connection {
    /// Forgets whose device was linked, with the keys of which this goes: the number is free to change.
    pub async fn forget_device(conn: &mut AsyncPgConnection, lease: Lease) -> QueryResult<usize> {
        diesel::update(lease.row())
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
        lease: Lease,
        jid: &str,
        lid: Option<&str>,
    ) -> QueryResult<usize> {
        diesel::update(lease.row())
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
        lease: Lease,
        status: Status,
        reason: Option<&str>,
    ) -> QueryResult<Vec<Uuid>> {
        conn.transaction(async |conn| {
            let Some(events) = Self::change(conn, lease, status, reason, None).await? else {
                return Ok(Vec::new());
            };
            if matches!(status, Status::Disconnected | Status::LoggedOut) {
                diesel::update(lease.row())
                    .filter(connections::desired.ne(Desired::LoggedOut.as_str()))
                    .set(connections::desired.eq(status.as_str()))
                    .execute(conn)
                    .await?;
            }
            if status == Status::LoggedOut {
                Self::forget_device(conn, lease).await?;
            }
            Ok(events)
        })
        .await
    }

    /// Writes, as [`Connection::transition`] does, that WhatsApp has turned the session away. It is still
    /// desired, and nobody tries it again before so many seconds are over.
    pub async fn pause(
        conn: &mut AsyncPgConnection,
        lease: Lease,
        reason: &str,
        seconds: f64,
    ) -> QueryResult<Vec<Uuid>> {
        conn.transaction(async |conn| {
            let (status, reason) = (Status::Reconnecting, Some(reason));
            let events = Self::change(conn, lease, status, reason, Some(seconds)).await?;
            Statement::new(
                "UPDATE whatsapp_connections SET retry_at = now() + make_interval(secs => ?)
                 WHERE id = ? AND epoch = ?",
            )
            .bind::<Double, _>(seconds)
            .bind::<SqlUuid, _>(lease.connection_id)
            .bind::<BigInt, _>(lease.epoch)
            .execute(conn)
            .await?;
            Ok(events.unwrap_or_default())
        })
        .await
    }

    /// Writes status and reason and tells of them; `None` where they stand already.
    async fn change(
        conn: &mut AsyncPgConnection,
        lease: Lease,
        status: Status,
        reason: Option<&str>,
        retry_in: Option<f64>,
    ) -> QueryResult<Option<Vec<Uuid>>> {
        let changed: Option<Changed> = Statement::new(
            "UPDATE whatsapp_connections
             SET status = ?, reason = ?, transition = transition + 1, last_update = now(),
                 qr_code = NULL, pairing_code = NULL, code_expires_at = NULL, retry_at = NULL
             WHERE id = ? AND epoch = ? AND (status, reason) IS DISTINCT FROM (?, ?)
             RETURNING client_id, phone_number, transition, last_update AS at",
        )
        .bind::<Text, _>(status.as_str())
        .bind::<Nullable<Text>, _>(reason)
        .bind::<SqlUuid, _>(lease.connection_id)
        .bind::<BigInt, _>(lease.epoch)
        .bind::<Text, _>(status.as_str())
        .bind::<Nullable<Text>, _>(reason)
        .get_result(conn)
        .await
        .optional()?;
        let Some(changed) = changed else {
            return Ok(None);
        };
        let mut metadata = serde_json::json!({"v": 1, "status": status.as_str(), "reason": reason});
        if let Some(seconds) = retry_in {
            metadata["retry_in_seconds"] = seconds.into();
        }
        let event = status.event();
        let notice = changed.notice(lease.connection_id, event, metadata.to_string());
        inbox::announce(conn, &notice).await.map(Some)
    }

    /// Writes, as [`Connection::transition`] does, that what was desired is so. Changes nothing when
    /// something else is desired by now.
    pub async fn fulfil(
        conn: &mut AsyncPgConnection,
        lease: Lease,
        desired: Desired,
        reason: Option<&str>,
    ) -> QueryResult<Vec<Uuid>> {
        conn.transaction(async |conn| {
            let current: Option<String> = lease
                .row()
                .select(connections::desired)
                .for_update()
                .first(conn)
                .await
                .optional()?;
            match current.as_deref() == Some(desired.as_str()) {
                true => Self::transition(conn, lease, desired.status(), reason).await,
                false => Ok(Vec::new()),
            }
        })
        .await
    }

    /// Shows a code that is good for `seconds`, in place of the one before and of what was wrong so far, and
    /// tells the number's webhooks of it. Returns the new events' ids, to be rung.
    pub async fn show_code(
        conn: &mut AsyncPgConnection,
        lease: Lease,
        code: Code<'_>,
        seconds: f64,
    ) -> QueryResult<Vec<Uuid>> {
        let (qr, pairing) = match code {
            Code::Qr(qr) => (Some(qr), None),
            Code::Pairing(code) => (None, Some(code)),
        };
        conn.transaction(async |conn| {
            let changed: Option<Changed> = Statement::new(
                "UPDATE whatsapp_connections
                 SET reason = NULL, qr_code = ?, pairing_code = ?,
                     code_expires_at = now() + make_interval(secs => ?), transition = transition + 1
                 WHERE id = ? AND epoch = ?
                 RETURNING client_id, phone_number, transition, now() AS at",
            )
            .bind::<Nullable<Text>, _>(qr)
            .bind::<Nullable<Text>, _>(pairing)
            .bind::<Double, _>(seconds)
            .bind::<SqlUuid, _>(lease.connection_id)
            .bind::<BigInt, _>(lease.epoch)
            .get_result(conn)
            .await
            .optional()?;
            let Some(changed) = changed else {
                return Ok(Vec::new());
            };
            let metadata = match code {
                Code::Qr(code) => {
                    serde_json::json!({"v": 1, "qr": code, "expires_in_seconds": seconds})
                }
                Code::Pairing(code) => {
                    serde_json::json!({"v": 1, "pairing_code": code, "expires_in_seconds": seconds})
                }
            };
            let notice = changed.notice(
                lease.connection_id,
                EventType::ConnectionQr,
                metadata.to_string(),
            );
            inbox::announce(conn, &notice).await
        })
        .await
    }

    /// Removes the row of a connection whose device is unlinked.
    pub async fn remove(conn: &mut AsyncPgConnection, lease: Lease) -> QueryResult<usize> {
        diesel::delete(lease.row())
            .filter(connections::deleted_at.is_not_null())
            .execute(conn)
            .await
    }
}

#[derive(QueryableByName)]
struct Changed {
    #[diesel(sql_type = Integer)]
    client_id: i32,
    #[diesel(sql_type = Text)]
    phone_number: String,
    #[diesel(sql_type = BigInt)]
    transition: i64,
    #[diesel(sql_type = Timestamptz)]
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
