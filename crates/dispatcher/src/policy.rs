//! What an attempt means for its event: delivered, due again at some time, or given up.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::record::Outcome;
use http::{HeaderValue, StatusCode};

use crate::deliver::Attempt;

/// The pause after the first attempt; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// A pause is longer or shorter by up to this part of it.
const JITTER: f64 = 0.1;
/// A receiver may ask us to wait so long, and no longer.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What is to be known of the event that was attempted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// From 1.
    pub(crate) number: i32,
    /// Attempts in all.
    pub(crate) most: i32,
    /// Whether it found out if the receiver is back.
    pub(crate) probe: bool,
}

/// `random` is from 0 to 1.
pub(crate) fn judge(attempt: &Attempt, case: Case, random: f64) -> Outcome {
    let Some(failure) = &attempt.failure else {
        return Outcome::Delivered;
    };
    if attempt.status == Some(StatusCode::GONE) {
        return Outcome::Dead {
            reason: "the receiver answered 410 Gone".to_owned(),
            gone: true,
        };
    }
    if case.probe {
        return Outcome::ProbeFailed;
    }
    if case.number >= case.most {
        let count = case.number;
        return Outcome::Dead {
            reason: format!("the last attempt of {count} failed: {}", failure.error),
            gone: false,
        };
    }
    let pause = pause(case.number, leave_alone(attempt, random), random);
    Outcome::RetryIn(pause.as_secs_f64())
}

/// For how long the receiver wants nothing more, as it said. Not all are to come at that moment.
pub(crate) fn leave_alone(attempt: &Attempt, random: f64) -> Duration {
    let asked = attempt.retry_after.unwrap_or_default();
    asked.mul_f64(1.0 + JITTER * random)
}

/// How long to wait after the `number`th attempt, at least as long as was asked for.
fn pause(number: i32, asked: Duration, random: f64) -> Duration {
    let doublings = u32::try_from(number - 1).unwrap_or(0).min(31);
    let pause = FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE);
    let pause = pause.mul_f64(1.0 - JITTER + 2.0 * JITTER * random);
    pause.max(asked)
}

/// What a `Retry-After` header asks for: seconds, or the time until a date. `None` when it is neither.
pub(crate) fn retry_after(value: &HeaderValue, now: DateTime<Utc>) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let asked = match text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        // More digits than fit are a long time too.
        true => text
            .parse()
            .map_or(LONGEST_RETRY_AFTER, Duration::from_secs),
        false => {
            let date: DateTime<Utc> = httpdate::parse_http_date(text).ok()?.into();
            (date - now).to_std().unwrap_or_default()
        }
    };
    Some(asked.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::deliver::{Class, Failure};

    fn judged(number: i32, status: Option<u16>, probe: bool) -> Outcome {
        let case = Case {
            number,
            most: 3,
            probe,
        };
        judge(&attempt(status), case, 0.5)
    }

    fn attempt(status: Option<u16>) -> Attempt {
        let delivered = status.is_some_and(|code| (200..300).contains(&code));
        Attempt {
            started_at: DateTime::UNIX_EPOCH,
            took: Duration::ZERO,
            status: status.map(|code| StatusCode::from_u16(code).unwrap()),
            response: None,
            retry_after: None,
            failure: (!delivered).then(|| Failure {
                class: Class::Timeout,
                error: "no answer".to_owned(),
            }),
        }
    }

    fn asked(text: &str) -> Option<u64> {
        let now = DateTime::parse_from_rfc3339("2026-11-24T12:00:00Z").unwrap();
        let value = HeaderValue::from_str(text).unwrap();
        retry_after(&value, now.into()).map(|asked| asked.as_secs())
    }

    #[test]
    fn pauses_double_from_five_seconds_to_six_hours() {
        let seconds = |number| pause(number, Duration::ZERO, 0.5).as_secs();
        assert_eq!([1, 2, 3, 4].map(seconds), [5, 10, 20, 40]);
        assert_eq!(
            [13, 14, 15, i32::MAX].map(seconds),
            [20_480, 21_600, 21_600, 21_600]
        );
    }

    #[test]
    fn a_success_is_delivered_whatever_the_number() {
        for probe in [false, true] {
            assert_eq!(judged(99, Some(204), probe), Outcome::Delivered);
        }
    }

    #[test]
    fn max_retries_is_the_number_of_attempts_in_all() {
        assert!(matches!(judged(2, None, false), Outcome::RetryIn(_)));
        for number in [3, 4] {
            let outcome = judged(number, None, false);
            assert!(
                matches!(outcome, Outcome::Dead { gone: false, .. }),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn gone_ends_it_at_the_first_attempt() {
        for probe in [false, true] {
            let outcome = judged(1, Some(410), probe);
            assert!(matches!(outcome, Outcome::Dead { gone: true, .. }));
        }
    }

    #[test]
    fn a_probe_that_fails_uses_up_no_attempt_also_not_the_last() {
        for number in [1, 3, 99] {
            let outcome = judged(number, Some(500), true);
            assert_eq!(outcome, Outcome::ProbeFailed);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_has_a_cap() {
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked(" 0 "), Some(0));
        assert_eq!(asked("Tue, 24 Nov 2026 12:10:00 GMT"), Some(600));
        assert_eq!(asked("Tue, 24 Nov 2026 11:00:00 GMT"), Some(0));
        assert_eq!(asked("99999999999999999999999"), Some(24 * 3600));
        assert_eq!(asked("Fri, 24 Nov 2028 12:00:00 GMT"), Some(24 * 3600));
        for nonsense in ["", "soon", "-5", "1.5"] {
            assert_eq!(asked(nonsense), None, "{nonsense:?}");
        }
    }

    proptest! {
        #[test]
        fn a_pause_is_within_its_jitter_and_not_before_what_was_asked(
            number in 1_i32..100,
            asked in prop::option::of(0_u64..200_000),
            random in 0.0_f64..=1.0,
        ) {
            let base = (5.0 * 2_f64.powi((number - 1).min(40))).min(21_600.0);
            let asked = Duration::from_secs(asked.unwrap_or(0));
            let pause = pause(number, asked, random).as_secs_f64();
            let asked = asked.as_secs_f64();
            prop_assert!(pause >= base * 0.899 && pause >= asked);
            prop_assert!(pause <= (base * 1.101).max(asked * 1.101));
        }
    }
}
