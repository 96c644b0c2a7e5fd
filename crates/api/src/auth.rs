//! Who calls: the bearer token's client. A scope that is wrapped in [`authenticate`] looks at nothing
//! else of a request before it knows.

use std::future::{Ready, ready};

use actix_web::body::MessageBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, FromRequest, HttpMessage, HttpRequest};
use domain::client::{Client, Token};
use domain::scope::Scope;
use secrecy::SecretString;
use tracing::Span;

use crate::error::ApiError;
use crate::state::State;

/// The client whose token the request carries.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Client);

/// Refuses what carries no good token, and hands on the rest with its [`Caller`].
pub(crate) async fn authenticate(
    state: Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let known = async {
        let (client, token) = identify(&state, request.headers()).await?;
        state.limits.client(&request, client.id).await?;
        Ok::<_, ApiError>((client, token))
    };
    match known.await {
        Ok((client, token)) => {
            Span::current().record("client", client.id);
            request.extensions_mut().insert(Caller(client));
            request.extensions_mut().insert(token);
            Ok(next.call(request).await?.map_into_left_body())
        }
        Err(error) => Ok(request.error_response(error).map_into_right_body()),
    }
}

/// The client and the token of a request, as both are now.
pub(crate) async fn identify(
    state: &State,
    headers: &HeaderMap,
) -> Result<(Client, Token), ApiError> {
    let token = bearer(headers)?;
    let mut conn = state.connection().await?;
    let known = Client::authenticate(&mut conn, &token).await?;
    let (client, token) = known
        .ok_or_else(|| ApiError::unauthorized("The token is not known, or no longer valid."))?;
    if let Err(error) = token.note_use(&mut conn).await {
        tracing::warn!("it could not be noted that a token is used: {error}");
    }
    Ok((client, token))
}

/// Refuses a request whose token may not do what the route does. For routes in a scope that is wrapped in
/// [`authenticate`].
pub(crate) async fn permit(
    scope: Scope,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let token_may = |token: &Token| token.may(scope);
    let is_permitted = request.extensions().get().is_some_and(token_may);
    match is_permitted {
        true => Ok(next.call(request).await?.map_into_left_body()),
        false => {
            let refused = ApiError::out_of_scope(scope);
            Ok(request.error_response(refused).map_into_right_body())
        }
    }
}

pub(crate) fn bearer(headers: &HeaderMap) -> Result<SecretString, ApiError> {
    let value = headers.get(AUTHORIZATION).ok_or_else(|| {
        ApiError::unauthorized("A token is needed: Authorization: Bearer <token>.")
    })?;
    value
        .to_str()
        .ok()
        .and_then(|text| text.trim().split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty() && !token.contains(' '))
        .map(SecretString::from)
        .ok_or_else(|| ApiError::unauthorized("The Authorization header must be: Bearer <token>."))
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Self>().cloned();
        // A route outside of an authenticated scope has nobody to act for.
        ready(caller.ok_or_else(|| ApiError::unauthorized("A token is needed.")))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use secrecy::ExposeSecret;

    use super::*;

    fn token(value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        let token = bearer(&headers).ok()?;
        Some(token.expose_secret().to_owned())
    }

    #[test]
    fn the_scheme_is_bearer_in_whatever_case() {
        for value in ["Bearer t0ken", "bearer t0ken", "BEARER  t0ken "] {
            assert_eq!(token(value).as_deref(), Some("t0ken"), "{value:?}");
        }
    }

    #[test]
    fn anything_else_is_no_token() {
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Basic dDp0",
            "t0ken",
            "Bearer a b",
            "Bearer,a b",
        ] {
            assert_eq!(token(value), None, "{value:?}");
        }
        assert!(bearer(&HeaderMap::new()).is_err());
    }
}
