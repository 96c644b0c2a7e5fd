//! `Idempotency-Key`: a client's name for a request, under which it is done once.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use serde_json::json;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};

use crate::error::ApiError;
use crate::openapi::schema::verbatim;

const NAME: &str = "Idempotency-Key";
const LONGEST: usize = 255;

/// The key, where there is one.
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

impl FromRequest for IdempotencyKey {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut keys = request.headers().get_all(NAME);
        let key = match (keys.next(), keys.next()) {
            (None, _) => return ready(Ok(Self(None))),
            (Some(key), None) => key.as_bytes(),
            (Some(_), Some(_)) => return ready(Err(ApiError::field(NAME, "stands twice"))),
        };
        let good = (1..=LONGEST).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
        ready(match (good, str::from_utf8(key)) {
            (true, Ok(key)) => Ok(Self(Some(key.to_owned()))),
            _ => Err(ApiError::field(
                NAME,
                "must be 1 to 255 ASCII characters without spaces",
            )),
        })
    }
}

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text =
            json!({"type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": LONGEST});
        let parameter = ParameterBuilder::new()
            .name(NAME)
            .parameter_in(ParameterIn::Header)
            .description(Some(
                "Your name for the request, under which it is done once.",
            ))
            .schema(Some(verbatim(text)));
        vec![parameter.build()]
    }
}
