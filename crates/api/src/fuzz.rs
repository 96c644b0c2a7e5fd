//! Whatever comes in, what reads it takes it whole or refuses it: nothing panics, and what was taken reads the same when
//! it is read again. Half of what is tried is anything, half is nearly right.

use std::fmt::Debug;
use std::future::Ready;
use std::net::{IpAddr, Ipv4Addr};

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use actix_web::test::TestRequest;
use actix_web::{FromRequest, HttpRequest};
use domain::address::AddressPolicy;
use domain::event::Range;
use domain::phone::Phone;
use domain::recipient::Recipient;
use proptest::prelude::*;
use proptest::string::string_regex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{from_value, json};

use crate::address::{OutsideUrl, literal};
use crate::auth::bearer;
use crate::cursor::{DeadLetterCursor, EventCursor, WebhookCursor};
use crate::error::ApiError;
use crate::extract::{IdempotencyKey, LastEventId};
use crate::options::{CustomHeaders, IpRanges};

const CASES: u32 = 5_000;

/// Anything, or what this pattern makes of letters that mean something there.
fn text(nearly: &str) -> impl Strategy<Value = String> + use<> {
    prop_oneof![any::<String>(), string_regex(nearly).unwrap()]
}

/// What is taken is written in a form that reads the same again.
fn settles<T>(given: &str) -> Option<String>
where
    T: std::str::FromStr<Err: Debug> + Serialize,
{
    let write = |text: &str| {
        let value = text.parse::<T>().ok()?;
        Some(json!(value).as_str().unwrap().to_owned())
    };
    let written = write(given)?;
    assert_eq!(write(&written).as_ref(), Some(&written), "{given:?}");
    Some(written)
}

fn read<T: DeserializeOwned>(value: impl Serialize) -> Option<T> {
    from_value(json!(value)).ok()
}

fn extracted<T: FromRequest<Future = Ready<Result<T, ApiError>>>>(
    request: &HttpRequest,
) -> Result<T, ApiError> {
    T::from_request(request, &mut Payload::None).into_inner()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn a_phone_number_is_7_to_15_digits_however_it_is_written(
        given in text(r"[ +]{0,3}[0-9(). /-]{0,22}(:[0-9]{1,2})?(@(s\.whatsapp\.net|c\.us|lid|g\.us))?")
    ) {
        if let Some(written) = settles::<Phone>(&given) {
            prop_assert!((7..=15).contains(&written.len()));
            prop_assert!(written.bytes().all(|byte| byte.is_ascii_digit()) && !written.starts_with('0'));
            let key = written.parse::<Phone>().unwrap().key();
            prop_assert!(key.parse::<Phone>().unwrap().key() == key, "{key}");
        }
    }

    #[test]
    fn a_recipient_reads_the_same_again(given in text(r"[ +]?[0-9-]{0,44}([:.][0-9]*)?@?(g\.us|lid|s\.whatsapp\.net)?")) {
        if let Ok(recipient) = given.parse::<Recipient>() {
            let again = recipient.as_str().parse::<Recipient>().unwrap();
            prop_assert_eq!(again.as_str(), recipient.as_str());
        }
    }

    #[test]
    fn a_url_is_absolute_http_and_holds_no_password(
        given in text(r"(https?|HTTPS|ftp|file)?:?/{0,3}([a-z0-9%.-]{0,9}[@:]){0,2}(\[[0-9a-f:.]{0,20}\]|[a-z0-9.\\%-]{0,20})(:[0-9]{0,6})?[/?#\\a-z ]{0,8}")
    ) {
        if let Some(url) = read::<OutsideUrl>(&given) {
            let parsed = url::Url::parse(url.as_str()).unwrap();
            prop_assert!(matches!(parsed.scheme(), "http" | "https"));
            prop_assert!(parsed.has_host() && parsed.username().is_empty() && parsed.password().is_none());
            prop_assert!(!url.as_str().contains(char::is_whitespace));
        }
    }

    /// As one number, in hexadecimal or octal, with fewer dots.
    #[test]
    fn an_address_that_is_not_public_is_seen_however_it_is_written(
        base in prop_oneof![Just(10u32 << 24), Just(127 << 24), Just(0xA9FE << 16), Just(0xC0A8 << 16)],
        host in 0u32..1 << 16,
        dots in 0usize..4,
        radix in prop::collection::vec(0u8..3, 4),
    ) {
        let address = base + host;
        let part = |value: u32, radix: u8| match radix {
            0 => value.to_string(),
            1 => format!("0x{value:x}"),
            _ => format!("0{value:o}"),
        };
        let bytes = address.to_be_bytes();
        let mut parts: Vec<String> = (0..dots).map(|at| part(bytes[at].into(), radix[at])).collect();
        let rest = (u64::from(address) & (u64::from(u32::MAX) >> (8 * dots))) as u32;
        parts.push(part(rest, radix[dots]));
        let url: OutsideUrl = read(format!("https://{}/hook", parts.join("."))).unwrap();
        let seen = literal(url.as_str());
        prop_assert_eq!(seen, Some(IpAddr::V4(Ipv4Addr::from(address))));
        prop_assert!(!AddressPolicy::default().permits(seen.unwrap()));
    }

    #[test]
    fn ranges_read_the_same_again(given in prop::collection::vec(text(r"([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,3}|[0-9a-f:]{0,24}/[0-9]{1,3}"), 0..4)) {
        if let Some(ranges) = read::<IpRanges>(&given) {
            let texts = ranges.texts();
            prop_assert_eq!(read::<IpRanges>(&texts).unwrap().texts(), texts);
        }
    }

    #[test]
    fn a_cursor_is_one_that_was_given_out_or_is_refused(
        given in text("[A-Za-z0-9_=-]{0,48}"),
        numbers in any::<[i64; 4]>(),
        place in 0usize..44,
        letter in any::<char>(),
    ) {
        let cursor = EventCursor {
            range: Range { after: numbers[0], before: numbers[1] },
            total: numbers[2].rem_euclid(10_001),
            mark: numbers[3].to_be_bytes(),
        };
        let written = json!(cursor).as_str().unwrap().to_owned();
        prop_assert_eq!(written.parse(), Ok(cursor));
        // One letter of it is another.
        let mut letters: Vec<char> = written.chars().collect();
        letters[place] = letter;
        let other: String = letters.into_iter().collect();
        for given in [given, other] {
        for written in [settles::<EventCursor>(&given), settles::<WebhookCursor>(&given), settles::<DeadLetterCursor>(&given)] {
            prop_assert!(written.is_none_or(|written| written == given));
        }
        }
    }

    #[test]
    fn custom_headers_can_be_sent_as_they_are(name in text("[A-Za-z0-9_:. -]{0,20}"), value in text("[ -~\t]{0,40}")) {
        if read::<CustomHeaders>(json!({&name: &value})).is_some() {
            let sent: HeaderName = name.parse().unwrap();
            let own = ["host", "content-type", "content-length", "transfer-encoding", "connection"];
            prop_assert!(!own.contains(&sent.as_str()) && !sent.as_str().starts_with("webhook-"));
            let sent = HeaderValue::from_str(&value).unwrap();
            prop_assert_eq!(sent.to_str().unwrap(), value);
        }
    }

    #[test]
    fn headers_of_requests_are_read_or_refused(bytes in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        "[Bb]earer[ ]{0,3}[!-~]{0,10}[ ]{0,2}[a-z]{0,3}|[0-9+-]{0,21}|[!-~]{0,300}".prop_map(String::into_bytes),
    ]) {
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.clone());
        let _ = bearer(&headers);
        let request = |name: &'static str| TestRequest::default().insert_header((name, value.clone())).to_http_request();
        if let Ok(IdempotencyKey(key)) = extracted(&request("Idempotency-Key")) {
            prop_assert!(key.is_some_and(|key| (1..=255).contains(&key.len())));
        }
        if let Ok(LastEventId(Some(id))) = extracted(&request("Last-Event-ID")) {
            prop_assert!(id >= 0);
        }
    }
}
