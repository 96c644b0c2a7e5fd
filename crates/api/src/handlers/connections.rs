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
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Id, IdempotencyKey};
use crate::gateway;
use crate::openapi::{answers, values};
use crate::state::State;

pub(super) const NO_CONNECTION: &str = "connection of that user_id";

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct OfUser {
    /// Your name for the session.
    user_id: Uuid,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Standing {
    #[schema(schema_with = values::connection_status)]
    status: String,
    /// What led to the status, where that says more.
    #[schema(required = true)]
    reason: Option<String>,
    /// When it is tried again, where WhatsApp has turned it away for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<DateTime<Utc>>,
    last_update: DateTime<Utc>,
    session_id: Uuid,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Ended<'a> {
    #[schema(schema_with = values::connection_status)]
    status: &'a str,
    session_id: Uuid,
}

/// A connection as its client sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = Connection)]
pub(crate) struct ConnectionBody {
    id: Uuid,
    /// The id, by the name that the calls of a session use.
    session_id: Uuid,
    client_id: i32,
    user_id: Uuid,
    #[schema(schema_with = values::digits)]
    phone_number: String,
    #[schema(schema_with = values::connection_status)]
    status: String,
    #[schema(required = true)]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<DateTime<Utc>>,
    #[schema(required = true)]
    jid: Option<String>,
    #[schema(required = true)]
    lid: Option<String>,
    last_update: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Connections)]
pub(crate) struct Many {
    #[schema(schema_with = values::success)]
    status: &'static str,
    count: usize,
    connections: Vec<ConnectionBody>,
}

/// List your connections
///
/// All of them, newest first.
#[utoipa::path(
    get,
    path = "/api/whatsapp/connections",
    operation_id = "list_connections",
    tag = "WhatsApp",
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "Your connections.", body = Many),
        answers::Caller,
    )
)]
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

/// Show how a session stands
#[utoipa::path(
    get,
    path = "/api/whatsapp/status/{user_id}",
    operation_id = "show_status",
    tag = "WhatsApp",
    params(("user_id" = Uuid, Path, description = "The session's user.")),
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "How it stands.", body = Standing),
        answers::Missing,
        answers::Caller,
    )
)]
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

/// Close a session
///
/// The device stays linked: to connect again needs no code.
#[utoipa::path(
    post,
    path = "/api/whatsapp/disconnect",
    operation_id = "disconnect",
    tag = "WhatsApp",
    params(IdempotencyKey),
    request_body(content = OfUser, example = json!({"user_id": "6f1d3c1e-0b1c-4b56-9f7e-2f0f5b3c9a01"})),
    security(("bearer" = ["connect"])),
    responses(
        answers::Once,
        (status = 200, description = "It is done.", body = Ended),
        (status = 202, description = "It is asked for, and a gateway will do it; so far the status is the old one.", body = Ended),
        answers::Missing,
        answers::Body,
        answers::Caller,
    )
)]
pub(crate) async fn disconnect(
    state: Data<State>,
    Caller(client): Caller,
    Body(request): Body<OfUser>,
) -> Result<HttpResponse, ApiError> {
    end(&state, client.id, request.user_id, Desired::Disconnected).await
}

/// Log a session out
///
/// Unlinks the device at WhatsApp and deletes its keys.
#[utoipa::path(
    post,
    path = "/api/whatsapp/logout",
    operation_id = "log_out",
    tag = "WhatsApp",
    params(IdempotencyKey),
    request_body(content = OfUser, example = json!({"user_id": "6f1d3c1e-0b1c-4b56-9f7e-2f0f5b3c9a01"})),
    security(("bearer" = ["connect"])),
    responses(
        answers::Once,
        (status = 200, description = "It is done.", body = Ended),
        (status = 202, description = "It is asked for, and a gateway will do it; so far the status is the old one.", body = Ended),
        answers::Missing,
        answers::Body,
        answers::Caller,
    )
)]
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

/// Delete a connection
///
/// Unlinks the device and removes the connection; for you it is gone at once.
#[utoipa::path(
    delete,
    path = "/api/whatsapp/connections/{session_id}",
    operation_id = "delete_connection",
    tag = "WhatsApp",
    params(("session_id" = Uuid, Path, description = "The connection's.")),
    security(("bearer" = ["connect"])),
    responses(
        (status = 200, description = "It is done.", body = Ended),
        (status = 202, description = "It is asked for, and a gateway will do it; so far the status is the old one.", body = Ended),
        answers::Missing,
        answers::Caller,
    )
)]
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
