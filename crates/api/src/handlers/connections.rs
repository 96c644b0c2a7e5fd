//! Connections: how they stand, and ending them.
//!
//! To end a session is the gateway's work. It is asked for in the database, so it will be done; when a
//! gateway does it at once, the answer is a 200 with the status that was asked for, else a 202 with the
//! one that still stands.

use actix_web::HttpResponse;
use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use diesel_async::AsyncPgConnection;
use domain::connection::{Connection, Desired, Status};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Id};
use crate::gateway;
use crate::state::State;

pub(super) const NO_CONNECTION: &str = "connection of that user_id";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct OfUser {
    user_id: Uuid,
}

#[derive(Serialize)]
pub(crate) struct Standing {
    status: String,
    /// What led to the status, where that says more.
    reason: Option<String>,
    /// When it is tried again, where WhatsApp has turned it away for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<DateTime<Utc>>,
    last_update: DateTime<Utc>,
    session_id: Uuid,
}

#[derive(Serialize)]
struct Ended<'a> {
    status: &'a str,
    session_id: Uuid,
}

/// A connection as its client sees it.
#[derive(Serialize)]
pub(crate) struct ConnectionBody {
    id: Uuid,
    /// The id, by the name that the calls of a session use.
    session_id: Uuid,
    client_id: i32,
    user_id: Uuid,
    phone_number: String,
    status: String,
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<DateTime<Utc>>,
    jid: Option<String>,
    lid: Option<String>,
    last_update: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

#[derive(Serialize)]
pub(crate) struct Many {
    status: &'static str,
    count: usize,
    connections: Vec<ConnectionBody>,
}

pub(crate) async fn list(
    state: Data<State>,
    Caller(client): Caller,
) -> Result<Json<Many>, ApiError> {
    let mut conn = state.connection().await?;
    let connections = Connection::list(&mut conn, client.id).await?;
    Ok(Json(Many {
        status: "success",
        count: connections.len(),
        connections: connections.into_iter().map(ConnectionBody::from).collect(),
    }))
}

pub(crate) async fn status(
    state: Data<State>,
    Caller(client): Caller,
    Id(user): Id,
) -> Result<Json<Standing>, ApiError> {
    let mut conn = state.connection().await?;
    let found = Connection::of_user(&mut conn, client.id, user).await?;
    let connection = found.ok_or_else(|| ApiError::not_found(NO_CONNECTION))?;
    Ok(Json(Standing {
        status: connection.status,
        reason: connection.reason,
        retry_at: connection.retry_at,
        last_update: connection.last_update,
        session_id: connection.id,
    }))
}

/// Closes the session and keeps the device linked: to connect again needs no code.
pub(crate) async fn disconnect(
    state: Data<State>,
    Caller(client): Caller,
    Body(request): Body<OfUser>,
) -> Result<HttpResponse, ApiError> {
    end(&state, client.id, request.user_id, Desired::Disconnected).await
}

/// Unlinks the device at WhatsApp and deletes its keys.
pub(crate) async fn logout(
    state: Data<State>,
    Caller(client): Caller,
    Body(request): Body<OfUser>,
) -> Result<HttpResponse, ApiError> {
    end(&state, client.id, request.user_id, Desired::LoggedOut).await
}

async fn end(
    state: &State,
    client_id: i32,
    user: Uuid,
    desired: Desired,
) -> Result<HttpResponse, ApiError> {
    let asked = {
        let mut conn = state.connection().await?;
        Connection::desire(&mut conn, client_id, user, desired).await?
    };
    let asked = asked.ok_or_else(|| ApiError::not_found(NO_CONNECTION))?;
    let look = async |conn: &mut AsyncPgConnection| Connection::find(conn, asked.id).await;
    let has_ended = |row: &Connection| {
        // A device that is unlinked has no session left to close either.
        row.status == desired.as_str() || row.status == Status::LoggedOut.as_str()
    };
    let (seen, done) = gateway::ask(state, look, |row| row.is_none_or(has_ended)).await?;
    // Gone altogether: deleted by another request, which takes a log-out.
    let status = seen.map_or(Status::LoggedOut.as_str().to_owned(), |row| row.status);
    Ok(ended(asked.id, &status, done))
}

/// Unlinks the device and removes the connection; for the client it is gone at once.
pub(crate) async fn remove(
    state: Data<State>,
    Caller(client): Caller,
    Id(id): Id,
) -> Result<HttpResponse, ApiError> {
    let deleted = {
        let mut conn = state.connection().await?;
        Connection::delete(&mut conn, client.id, id).await?
    };
    deleted.ok_or_else(|| ApiError::not_found("connection of that session_id"))?;
    let look = async |conn: &mut AsyncPgConnection| Connection::find(conn, id).await;
    let (seen, done) = gateway::ask(&state, look, |row| row.is_none()).await?;
    let status = seen.map_or(Status::LoggedOut.as_str().to_owned(), |row| row.status);
    Ok(ended(id, &status, done))
}

fn ended(session_id: Uuid, status: &str, done: bool) -> HttpResponse {
    let mut answer = match done {
        true => HttpResponse::Ok(),
        false => HttpResponse::Accepted(),
    };
    answer.json(Ended { status, session_id })
}

impl From<Connection> for ConnectionBody {
    fn from(connection: Connection) -> Self {
        Self {
            id: connection.id,
            session_id: connection.id,
            client_id: connection.client_id,
            user_id: connection.user_id,
            phone_number: connection.phone_number,
            status: connection.status,
            reason: connection.reason,
            retry_at: connection.retry_at,
            jid: connection.jid,
            lid: connection.lid,
            last_update: connection.last_update,
            created_at: connection.created_at,
        }
    }
}
