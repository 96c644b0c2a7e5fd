//! Which database errors pass by themselves, and which come back however often one tries.

use diesel::result::{DatabaseErrorKind, Error};

/// What an error of a statement says about running it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The rows are at fault (SQLSTATE class 23, or they cannot be encoded): they fail every time.
    Permanent,
    /// The server, the connection or another transaction was at fault: try again.
    Transient,
    /// The driver hands on no SQLSTATE to tell by. A row that keeps failing so, alone and while the
    /// server answers others, is at fault itself.
    Unclear,
}

/// Tells a poison row from a bad moment. Where the two cannot be told apart it says so: to retry a
/// poison row costs time, while to give up a good one costs a message.
pub fn classify(error: &Error) -> Failure {
    match error {
        Error::DatabaseError(kind, _) => match kind {
            DatabaseErrorKind::UniqueViolation
            | DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation
            | DatabaseErrorKind::ExclusionViolation => Failure::Permanent,
            DatabaseErrorKind::SerializationFailure
            | DatabaseErrorKind::ReadOnlyTransaction
            | DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::UnableToSendCommand => Failure::Transient,
            _ => Failure::Unclear,
        },
        Error::SerializationError(_) | Error::QueryBuilderError(_) => Failure::Permanent,
        _ => Failure::Transient,
    }
}
