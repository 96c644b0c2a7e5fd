//! `Idempotency-Key`: a client's name for a request, under which it is done once.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};

use crate::error::ApiError;

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
