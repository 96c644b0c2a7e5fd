//! Query strings. An unknown parameter is an error, as an unknown field of a body is.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest};
use serde::de::DeserializeOwned;

use super::blamed;
use crate::error::ApiError;

pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(parse(request.query_string()).map(Self))
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    let pairs = serde_urlencoded::Deserializer::new(url::form_urlencoded::parse(text.as_bytes()));
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let message = error.inner().to_string();
        blamed(error.path(), &message).unwrap_or_else(|| {
            let detail = format!("The query string cannot be read: {message}.");
            ApiError::plain(StatusCode::BAD_REQUEST, detail)
        })
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Page {
        limit: Option<u8>,
    }

    #[test]
    fn the_parameter_that_is_wrong_is_named() {
        assert_eq!(parse::<Page>("limit=7").unwrap().limit, Some(7));
        let refusal = |text| parse::<Page>(text).unwrap_err().to_string();
        assert!(
            refusal("limit=x").contains("limit: invalid digit"),
            "{}",
            refusal("limit=x")
        );
        assert!(refusal("limit=256").contains("limit: "));
        assert!(refusal("limt=7").contains("limt: unknown field `limt`, expected `limit`"));
        assert!(refusal("limit=1&limit=2").contains("limit: stands twice"));
    }
}
