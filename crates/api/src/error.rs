//! The one error of all handlers, and its answer: RFC 9457 problem details.
//!
//! Which goes where: what the caller sent is wrong, and a field is to blame: [`ApiError::field`]
//! (400); the form as a whole is wrong: [`ApiError::plain`] with its status; what was asked for is not
//! there, or is another client's: [`ApiError::not_found`]; it cannot be done as things stand:
//! [`ApiError::conflict`]; PostgreSQL or a gateway is away: [`ApiError::unavailable`] (503). Anything
//! else is ours, [`ApiError::internal`]: logged here, once, and told to nobody.

use std::borrow::Cow;
use std::fmt::{self, Display};

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpResponse, ResponseError};
use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error};
use diesel_async::pooled_connection::deadpool::PoolError;
use domain::connection::ConnectError;
use domain::keyring::SealError;
use domain::migration::SchemaError;
use domain::scope::Scope;
use qrcode::types::QrError;
use serde::Serialize;
use utoipa::ToSchema;

/// Seconds after which to try again what failed because something is away.
const RETRY_AFTER: u32 = 2;

/// Refusals that a program may want to tell apart from others of their status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing beyond what the status says.
    Status,
    Validation,
    AlreadyConnected,
    NumberTaken,
    OtherNumber,
    SessionEnded,
    NoReceiver,
    NoGateway,
    NotConnected,
    KeyUsed,
    UnderWay,
    NotSent,
    NotConfirmed,
    UploadsFull,
    MediaGone,
    MediaBroken,
    MediaAway,
}

#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: Kind,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    header: Option<(HeaderName, Cow<'static, str>)>,
}

/// What is wrong with one field, by its path in the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    #[schema(example = "batch.max_events")]
    pub(crate) field: String,
    pub(crate) detail: String,
}

/// What went wrong, by RFC 9457.
#[derive(Serialize, ToSchema)]
pub(crate) struct Problem<'a> {
    /// `about:blank` where the status says it all.
    #[schema(format = "uri", example = "urn:recado:problem:validation")]
    r#type: &'static str,
    title: &'a str,
    /// The answer's status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// For a person.
    detail: &'a str,
    /// What is wrong with each field, if the request is not valid.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Kind {
    /// The problem's `type` and `title`.
    fn name(self, status: StatusCode) -> (&'static str, &'static str) {
        match self {
            Self::Status => ("about:blank", status.canonical_reason().unwrap_or("Error")),
            Self::Validation => ("urn:recado:problem:validation", "The request is not valid"),
            Self::AlreadyConnected => (
                "urn:recado:problem:already-connected",
                "The session is connected already",
            ),
            Self::NumberTaken => (
                "urn:recado:problem:number-taken",
                "The number has a live connection already",
            ),
            Self::OtherNumber => (
                "urn:recado:problem:other-number",
                "The session is linked to another number",
            ),
            Self::SessionEnded => (
                "urn:recado:problem:session-ended",
                "The session ended meanwhile",
            ),
            Self::NoReceiver => (
                "urn:recado:problem:no-receiver",
                "The webhook takes no deliveries",
            ),
            Self::NoGateway => ("urn:recado:problem:no-gateway", "No gateway answered"),
            Self::NotConnected => (
                "urn:recado:problem:not-connected",
                "The session is not connected",
            ),
            Self::KeyUsed => (
                "urn:recado:problem:idempotency-key-used",
                "The key was used for something else",
            ),
            Self::UnderWay => (
                "urn:recado:problem:under-way",
                "The request is under way already",
            ),
            Self::NotSent => ("urn:recado:problem:not-sent", "The message was not sent"),
            Self::NotConfirmed => (
                "urn:recado:problem:not-confirmed",
                "The message may have been sent",
            ),
            Self::UploadsFull => ("urn:recado:problem:uploads-full", "Too many files are kept"),
            Self::MediaGone => ("urn:recado:problem:media-gone", "The file is kept no more"),
            Self::MediaBroken => (
                "urn:recado:problem:media-broken",
                "The file is not the one that was sent",
            ),
            Self::MediaAway => (
                "urn:recado:problem:media-away",
                "WhatsApp's media host did not answer",
            ),
        }
    }
}

impl ApiError {
    pub(crate) fn plain(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            kind: Kind::Status,
            detail: detail.into(),
            errors: Vec::new(),
            header: None,
        }
    }

    /// A 400 that names the field.
    pub(crate) fn field(field: impl Into<String>, detail: impl Display) -> Self {
        let error = FieldError {
            field: field.into(),
            detail: detail.to_string(),
        };
        Self {
            kind: Kind::Validation,
            errors: vec![error.clone()],
            ..Self::plain(
                StatusCode::BAD_REQUEST,
                format!("{}: {}", error.field, error.detail),
            )
        }
    }

    pub(crate) fn unauthorized(detail: &'static str) -> Self {
        Self::plain(StatusCode::UNAUTHORIZED, detail).with(header::WWW_AUTHENTICATE, "Bearer")
    }

    /// As [RFC 6750](https://www.rfc-editor.org/rfc/rfc6750#section-3.1) has it.
    pub(crate) fn out_of_scope(scope: Scope) -> Self {
        let detail = format!("The token may not do this: it lacks the scope {scope}.");
        let challenge = format!(r#"Bearer error="insufficient_scope", scope="{scope}""#);
        Self::plain(StatusCode::FORBIDDEN, detail).with(header::WWW_AUTHENTICATE, challenge)
    }

    /// `by` has asked more often than that a second; `reset`: seconds until it may ask as often again.
    pub(crate) fn too_many(by: &'static str, per_second: u32, reset: u64) -> Self {
        let detail = format!("One {by} may make {per_second} requests a second.");
        Self::plain(StatusCode::TOO_MANY_REQUESTS, detail)
            .with(header::RETRY_AFTER, reset.to_string())
    }

    /// `what` is what the client has none of: "webhook of that id".
    pub(crate) fn not_found(what: &'static str) -> Self {
        Self::plain(StatusCode::NOT_FOUND, format!("There is no {what}."))
    }

    pub(crate) fn conflict(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            ..Self::plain(StatusCode::CONFLICT, detail)
        }
    }

    /// It is well-formed, and can't be done.
    pub(crate) fn unprocessable(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            ..Self::plain(StatusCode::UNPROCESSABLE_ENTITY, detail)
        }
    }

    pub(crate) fn of(status: StatusCode, kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            ..Self::plain(status, detail)
        }
    }

    pub(crate) fn unavailable(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            ..Self::plain(StatusCode::SERVICE_UNAVAILABLE, detail)
        }
        .with(header::RETRY_AFTER, RETRY_AFTER.to_string())
    }

    /// What was under way ended half done, with this process.
    pub(crate) fn interrupted() -> Self {
        Self::unavailable(
            Kind::Status,
            "This was interrupted, and is done in part: ask again.",
        )
    }

    fn internal(error: &dyn Display) -> Self {
        tracing::error!("{error}");
        Self::plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Something went wrong on our side; it is logged.",
        )
    }

    fn database_away(error: &dyn Display) -> Self {
        tracing::warn!("PostgreSQL: {error}");
        Self::unavailable(
            Kind::Status,
            "The database cannot be reached at the moment.",
        )
    }

    pub(crate) fn with(self, name: HeaderName, value: impl Into<Cow<'static, str>>) -> Self {
        Self {
            header: Some((name, value.into())),
            ..self
        }
    }
}

impl Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let (r#type, title) = self.kind.name(self.status);
        let problem = Problem {
            r#type,
            title,
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        let body = serde_json::to_vec(&problem).expect("texts and numbers can be written as JSON");
        let mut response = HttpResponse::build(self.status);
        if let Some((name, value)) = &self.header {
            response.insert_header((name.clone(), value.as_ref()));
        }
        response.content_type("application/problem+json").body(body)
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        if is_outage(&error) {
            Self::database_away(&error)
        } else if is_timeout(&error) {
            Self::unavailable(Kind::Status, "This takes too long at the moment.")
        } else {
            Self::internal(&error)
        }
    }
}

impl From<PoolError> for ApiError {
    fn from(error: PoolError) -> Self {
        Self::database_away(&error)
    }
}

impl From<SchemaError> for ApiError {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Query(error) => error.into(),
            SchemaError::Missing | SchemaError::Old(_) => {
                tracing::warn!("{error}");
                let detail = "The database has not been brought up to date for this version yet.";
                Self::unavailable(Kind::Status, detail)
            }
        }
    }
}

impl From<SealError> for ApiError {
    fn from(error: SealError) -> Self {
        Self::internal(&error)
    }
}

impl From<QrError> for ApiError {
    fn from(error: QrError) -> Self {
        Self::internal(&error)
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(&error)
    }
}

impl From<ConnectError> for ApiError {
    fn from(error: ConnectError) -> Self {
        let (kind, detail) = match error {
            ConnectError::AlreadyConnected => (
                Kind::AlreadyConnected,
                "The session of this user_id is connected already.",
            ),
            ConnectError::NumberTaken => (
                Kind::NumberTaken,
                "You have a live connection for this number under another user_id.",
            ),
            ConnectError::OtherNumber => (
                Kind::OtherNumber,
                "The session of this user_id is linked to another number: log it out first.",
            ),
            ConnectError::Query(error) => return error.into(),
        };
        Self::conflict(kind, detail)
    }
}

/// Whether the server or the way to it failed, and not the statement.
fn is_outage(error: &Error) -> bool {
    match error {
        Error::DatabaseError(
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand,
            _,
        )
        | Error::BrokenTransactionManager => true,
        // The driver hands on no SQLSTATE (57P01 and its like); a server that speaks another language
        // than English costs the requests that it interrupts a 500.
        Error::DatabaseError(DatabaseErrorKind::Unknown, info) => is_farewell(info.as_ref()),
        Error::RollbackErrorOnCommit { commit_error, .. } => is_outage(commit_error),
        _ => false,
    }
}

/// Whether PostgreSQL ended a statement at the limit that was set for it.
fn is_timeout(error: &Error) -> bool {
    let Error::DatabaseError(DatabaseErrorKind::Unknown, info) = error else {
        return false;
    };
    info.message().contains("statement timeout")
}

fn is_farewell(info: &(dyn DatabaseErrorInformation + Send + Sync)) -> bool {
    let message = info.message();
    message.starts_with("terminating connection") || message.starts_with("the database system is")
}
