//! The id that stands in a path. Every route has at most one.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use uuid::Uuid;

use crate::error::ApiError;

/// The path's id, whatever the route calls it.
pub(crate) struct Id(pub(crate) Uuid);

impl FromRequest for Id {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let (name, text) = request.match_info().iter().next().unwrap_or(("id", ""));
        let id = text.parse().map(Self);
        ready(id.map_err(|_| ApiError::field(name, "is not a UUID")))
    }
}
