//! Answers that many calls have in common. Each stands once among the document's components.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::IntoResponses;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use super::schema::verbatim;

/// A refusal: its name among the components, its status, and when it comes.
struct Refusal {
    name: &'static str,
    status: u16,
    description: &'static str,
    header: Option<(&'static str, &'static str)>,
}

macro_rules! refusals {
    ($($constant:ident = $name:literal $status:literal $description:literal $(, $header:literal = $about:literal)?;)+) => {
        $(const $constant: Refusal = Refusal {
            name: $name,
            status: $status,
            description: $description,
            header: refusals!(@header $($header, $about)?),
        };)+

        const ALL: &[Refusal] = &[$($constant),+];
    };
    (@header) => { None };
    (@header $header:literal, $about:literal) => { Some(($header, $about)) };
}

refusals! {
    INVALID = "Invalid" 400 "Something in the request is not as it must be; `errors` names the field or parameter.";
    UNAUTHORIZED = "Unauthorized" 401 "There is no token, or none that is known and valid.",
        "WWW-Authenticate" = "`Bearer`.";
    FORBIDDEN = "Forbidden" 403 "The token lacks the scope that this call needs.",
        "WWW-Authenticate" = "`Bearer`, with the `scope` that is needed.";
    NOT_FOUND = "NotFound" 404 "You have nothing of that id. What another client has does not exist for you.";
    UNDER_WAY = "UnderWay" 409 "The first request under this key is still under way.", "Retry-After" = "Seconds after which to ask again.";
    NOT_IN_TIME = "NotInTime" 408 "The body took too long to come.";
    TOO_LARGE = "TooLarge" 413 "The body is too large.";
    WRONG_TYPE = "WrongType" 415 "The body is not of a type that is taken here, or is compressed.";
    KEY_USED = "KeyUsed" 422 "The key was used for another request.";
    TOO_MANY = "TooMany" 429 "You, or your address, asked more often than is answered.", "Retry-After" = "Seconds after which to ask again.";
    UNAVAILABLE = "Unavailable" 503 "Something that is needed is away, or busy. Nothing is lost: ask again.",
        "Retry-After" = "Seconds after which to ask again.";
}

macro_rules! sets {
    ($($(#[$attribute:meta])* $set:ident = [$($refusal:ident),+];)+) => {$(
        $(#[$attribute])*
        pub(crate) struct $set;

        impl IntoResponses for $set {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$($refusal),+].iter().map(Refusal::reference).collect()
            }
        }
    )+};
}

sets! {
    /// Of every call.
    Anybody = [TOO_MANY];
    /// Of a call that needs a token, whatever its scopes.
    Bearer = [UNAUTHORIZED, TOO_MANY, UNAVAILABLE];
    /// Of a call that needs a token with a scope.
    Caller = [UNAUTHORIZED, FORBIDDEN, TOO_MANY, UNAVAILABLE];
    /// Of a call with parameters, in its path or query.
    Parameters = [INVALID];
    /// Of a call about one thing.
    Missing = [INVALID, NOT_FOUND];
    /// Of a call that is done once under a key. Where one of these says more at a call, that stands behind this.
    Once = [INVALID, UNDER_WAY, NOT_IN_TIME, TOO_LARGE, KEY_USED];
    /// Of a call with a body.
    Body = [INVALID, NOT_IN_TIME, TOO_LARGE, WRONG_TYPE];
}

/// All of them, by name.
pub(super) fn components() -> impl Iterator<Item = (String, RefOr<Response>)> {
    ALL.iter()
        .map(|refusal| (refusal.name.to_owned(), RefOr::T(refusal.response())))
}

impl Refusal {
    fn reference(&self) -> (String, RefOr<Response>) {
        let reference = Ref::from_response_name(self.name);
        (self.status.to_string(), RefOr::Ref(reference))
    }

    fn response(&self) -> Response {
        let problem = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(problem)).build();
        let mut response = ResponseBuilder::new()
            .description(self.description)
            .content("application/problem+json", content);
        if let Some((name, description)) = self.header {
            let text = verbatim(json!({"type": "string"}));
            let header = HeaderBuilder::new()
                .schema(Some(text))
                .description(Some(description));
            response = response.header(name, header.build());
        }
        response.build()
    }
}
