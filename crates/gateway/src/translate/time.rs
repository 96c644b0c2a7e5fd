//! Times that a message names, as every time in a delivery is written.

use chrono::{DateTime, Datelike, Utc};
use domain::payload::rfc3339;

/// Unix seconds; `None` for what no calendar holds.
pub(super) fn seconds(unix: Option<i64>) -> Option<String> {
    DateTime::from_timestamp(unix?, 0).and_then(written)
}

/// Unix milliseconds.
pub(super) fn millis(unix: Option<i64>) -> Option<String> {
    DateTime::from_timestamp_millis(unix?).and_then(written)
}

fn written(time: DateTime<Utc>) -> Option<String> {
    (0..=9999).contains(&time.year()).then(|| rfc3339(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_with_a_year_of_four_digits_are_written() {
        assert_eq!(
            seconds(Some(1_764_000_000)).unwrap(),
            "2025-11-24T16:00:00.000Z"
        );
        for odd in [i64::MIN, i64::MAX, 1 << 40] {
            assert_eq!(seconds(Some(odd)), None);
        }
        assert_eq!(millis(None), None);
    }
}
