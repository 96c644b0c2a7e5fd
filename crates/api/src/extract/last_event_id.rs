//! `Last-Event-ID`: where a stream is to go on.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use serde_json::json;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};

use crate::error::ApiError;
use crate::openapi::schema::verbatim;

/// The id, where there is one.
pub(crate) struct LastEventId(pub(crate) Option<i64>);

impl LastEventId {
    pub(crate) const NAME: &str = "Last-Event-ID";

    fn read(request: &HttpRequest) -> Result<Option<i64>, ApiError> {
        let Some(value) = request
            .headers()
            .get(Self::NAME)
            .filter(|value| !value.is_empty())
        else {
            return Ok(None);
        };
        let number = value
            .to_str()
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|text| text.parse().ok());
        let refused = || ApiError::field(Self::NAME, "is not an id of this stream");
        number.map(Some).ok_or_else(refused)
    }
}

impl FromRequest for LastEventId {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::read(request).map(Self))
    }
}

impl IntoParams for LastEventId {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let parameter = ParameterBuilder::new()
            .name(Self::NAME)
            .parameter_in(ParameterIn::Header)
            .description(Some(
                "The `id` that was last seen; from now on, where none is said.",
            ))
            .schema(Some(verbatim(
                json!({"type": "string", "pattern": "^[0-9]*$"}),
            )));
        vec![parameter.build()]
    }
}
