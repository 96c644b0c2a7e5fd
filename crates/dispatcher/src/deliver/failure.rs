//! Why an attempt failed: a word for programs and a line for people. The line is shown to the
//! webhook's owner, so it says what the receiver did and nothing of our own insides.

use std::error::Error;
use std::io;
use std::time::Duration;

use http::StatusCode;
use hyper_util::client::legacy;

use super::connect::ConnectError;
use crate::guard::Forbidden;

/// Characters of somebody else's error text that are shown.
const LONGEST_QUOTE: usize = 300;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: Class,
    pub(crate) error: String,
}

macro_rules! classes {
    ($($variant:ident = $word:literal: $meaning:literal),+ $(,)?) => {
        /// Kinds of failure. Their words stand in the ledger and in metrics, and don't change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Class { $(#[doc = $meaning] $variant),+ }

        impl Class {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),+];

            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

classes! {
    Status = "http_status": "It answered with a status that is neither 2xx nor 3xx.",
    Redirect = "redirect": "It answered with a redirect, and none is followed.",
    Timeout = "timeout": "It didn't answer in time, or the answer didn't end.",
    Dns = "dns": "Its host name doesn't resolve.",
    Connect = "connect": "There was no connection.",
    Tls = "tls": "The TLS handshake failed.",
    Closed = "closed": "The connection ended before there was an answer.",
    Protocol = "protocol": "What came back is not HTTP.",
    Body = "body": "The connection ended within the answer's body.",
    Address = "address_forbidden": "Its address is one that webhooks may not have.",
    Url = "url": "Its URL can't be used, or is not https.",
    Payload = "payload": "The event can't be written as JSON.",
}

impl Failure {
    fn new(class: Class, error: impl Into<String>) -> Self {
        Self {
            class,
            error: error.into(),
        }
    }

    /// With words that are not ours, in one line and in bounds: a certificate may hold anything.
    fn tls(error: &rustls::Error) -> Self {
        let said = error.to_string();
        let said = said.chars().map(|c| if c.is_control() { ' ' } else { c });
        let said: String = said.take(LONGEST_QUOTE).collect();
        Self::new(Class::Tls, format!("the TLS handshake failed: {said}"))
    }

    pub(super) fn of_status(status: StatusCode) -> Self {
        match status.is_redirection() {
            true => Self::new(
                Class::Redirect,
                format!("answered {}; redirects are not followed", shown(status)),
            ),
            false => Self::new(Class::Status, format!("answered {}", shown(status))),
        }
    }

    pub(super) fn no_answer(timeout: Duration) -> Self {
        Self::new(
            Class::Timeout,
            format!("no answer within {}", seconds(timeout)),
        )
    }

    pub(super) fn no_end(timeout: Duration) -> Self {
        let error = format!("the answer did not end within {}", seconds(timeout));
        Self::new(Class::Timeout, error)
    }

    pub(super) fn payload() -> Self {
        Self::new(Class::Payload, "the event can't be written as JSON")
    }

    /// The connection ended, or worse, while the body came.
    pub(super) fn of_body(error: &hyper::Error) -> Self {
        // hyper gives what is wrong with a chunk as an I/O error.
        let kind = cause::<io::Error>(error).map(io::Error::kind);
        let malformed = matches!(
            kind,
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
        );
        match error.is_parse() || malformed {
            true => Self::new(
                Class::Protocol,
                "the answer's body breaks the rules of HTTP",
            ),
            false => Self::new(Class::Body, "the connection ended within the answer's body"),
        }
    }

    /// No answer: found by what lies at the bottom of the error.
    pub(super) fn of_request(error: &legacy::Error) -> Self {
        if let Some(tls) = cause::<rustls::Error>(error) {
            return Self::tls(tls);
        }
        match cause::<ConnectError>(error) {
            Some(ConnectError::Forbidden(forbidden)) => return (*forbidden).into(),
            Some(error @ ConnectError::Dns) => return Self::new(Class::Dns, error.to_string()),
            Some(error @ ConnectError::TimedOut(_)) => {
                return Self::new(Class::Timeout, error.to_string());
            }
            Some(ConnectError::Refused(error)) => {
                return Self::new(Class::Connect, unconnected(Some(error.kind())));
            }
            None => {}
        }
        let io = cause::<io::Error>(error).map(io::Error::kind);
        if error.is_connect() {
            // TCP was there, and the other end left during the TLS handshake.
            return Self::new(Class::Tls, "the connection ended within the TLS handshake");
        }
        let http = cause::<hyper::Error>(error);
        if http.is_some_and(hyper::Error::is_parse) {
            let error = "what came back is not HTTP, or its head is too large";
            return Self::new(Class::Protocol, error);
        }
        if io.is_some()
            || http.is_some_and(|error| error.is_incomplete_message() || error.is_closed())
        {
            return Self::new(
                Class::Closed,
                "the connection ended before there was an answer",
            );
        }
        Self::new(Class::Protocol, "the exchange broke the rules of HTTP")
    }
}

impl From<Forbidden> for Failure {
    fn from(forbidden: Forbidden) -> Self {
        let class = match forbidden {
            Forbidden::Address | Forbidden::Range => Class::Address,
            Forbidden::Url | Forbidden::Scheme => Class::Url,
        };
        Self::new(class, forbidden.to_string())
    }
}

fn unconnected(kind: Option<io::ErrorKind>) -> &'static str {
    match kind {
        Some(io::ErrorKind::ConnectionRefused) => "the connection was refused",
        Some(io::ErrorKind::ConnectionReset) => "the connection was reset",
        Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
            "the host cannot be reached"
        }
        _ => "no connection",
    }
}

/// The first error of that type among the causes. An I/O error hides what it wraps from `source`.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

fn shown(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_str()),
        None => status.as_str().to_owned(),
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16) -> (Class, String) {
        let failure = Failure::of_status(StatusCode::from_u16(code).unwrap());
        (failure.class, failure.error)
    }

    #[test]
    fn a_status_is_shown_with_its_name() {
        assert_eq!(
            of(500),
            (
                Class::Status,
                "answered 500 Internal Server Error".to_owned()
            )
        );
        assert_eq!(of(599), (Class::Status, "answered 599".to_owned()));
        assert_eq!(of(302).0, Class::Redirect);
    }

    #[test]
    fn times_are_shown_as_they_were_set() {
        let failure = Failure::no_answer(Duration::from_millis(1500));
        assert_eq!(failure.error, "no answer within 1.5 s");
        assert_eq!(seconds(Duration::from_secs(10)), "10 s");
    }

    #[test]
    fn a_cause_is_found_inside_of_an_io_error() {
        let error = io::Error::other(rustls::Error::HandshakeNotComplete);
        assert!(cause::<rustls::Error>(&error).is_some());
        assert!(cause::<Forbidden>(&error).is_none());
    }

    #[test]
    fn what_a_certificate_says_stays_in_one_short_line() {
        let error = rustls::Error::General(format!("a\0b\n{}", "x".repeat(10_000)));
        let failure = Failure::tls(&error);
        assert!(!failure.error.contains(char::is_control) && failure.error.len() < 400);
    }

    #[test]
    fn words_are_unique() {
        let mut words: Vec<_> = Class::ALL.iter().map(|class| class.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Class::ALL.len());
    }
}
