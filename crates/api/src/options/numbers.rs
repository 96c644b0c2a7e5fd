//! Options that are a number within bounds.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

macro_rules! bounded {
    ($($(#[$attribute:meta])* $name:ident = $bounds:expr;)+) => {$(
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) i32);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                within(deserializer, $bounds).map(Self)
            }
        }

        $crate::openapi::schema::schema! { $name, serde_json::json!({
            "type": "integer",
            "minimum": $bounds.start(),
            "maximum": $bounds.end(),
        }) }
    )+};
}
pub(super) use bounded;

bounded! {
    /// Attempts in all.
    MaxRetries = 1..=100;
    /// Deliveries a second, of all dispatchers together.
    RateLimit = 1..=10_000;
    /// Requests under way at once, for each dispatcher.
    MaxInFlight = 1..=256;
    /// Of the largest file that goes into the delivery itself; 0 is none.
    InlineMediaBytes = 0..=1_048_576;
}

pub(crate) fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    bounds: std::ops::RangeInclusive<i32>,
) -> Result<i32, D::Error> {
    let number = deserializer.deserialize_any(WholeNumber)?;
    i32::try_from(number)
        .ok()
        .filter(|number| bounds.contains(number))
        .ok_or_else(|| {
            let (least, most) = (bounds.start(), bounds.end());
            de::Error::custom(format_args!("must be from {least} to {most}"))
        })
}

/// A number of JSON without a fraction, also where it is written as `3.0`: to JSON these are the same.
struct WholeNumber;

impl Visitor<'_> for WholeNumber {
    type Value = i64;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number")
    }

    fn visit_i64<E>(self, number: i64) -> Result<i64, E> {
        Ok(number)
    }

    fn visit_u64<E>(self, number: u64) -> Result<i64, E> {
        Ok(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<i64, E> {
        match number.fract() == 0.0 {
            // What is too large for an i64 becomes the largest one.
            true => Ok(number as i64),
            false => Err(E::invalid_type(de::Unexpected::Float(number), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, from_value, json};

    use super::*;

    fn refused<T: DeserializeOwned>(values: &[Value]) -> bool {
        values
            .iter()
            .all(|value| from_value::<T>(value.clone()).is_err())
    }

    #[test]
    fn numbers_are_bounded() {
        assert_eq!(from_value::<MaxRetries>(json!(100)).unwrap().0, 100);
        assert_eq!(from_value::<MaxRetries>(json!(1e2)).unwrap().0, 100);
        assert_eq!(from_value::<RateLimit>(json!(10_000)).unwrap().0, 10_000);
        assert_eq!(from_value::<MaxInFlight>(json!(256)).unwrap().0, 256);
        for bytes in [0, 1_048_576] {
            let taken = from_value::<InlineMediaBytes>(json!(bytes)).unwrap();
            assert_eq!(taken.0, bytes);
        }
        assert!(refused::<InlineMediaBytes>(&[
            json!(-1),
            json!(1_048_577),
            json!(0.5)
        ]));
        let never = [
            json!(0),
            json!(-1),
            json!(10_001),
            json!(u64::MAX),
            json!(1.5),
            json!(1e300),
            json!("3"),
        ];
        assert!(refused::<MaxRetries>(&never) && refused::<MaxRetries>(&[json!(101)]));
        assert!(refused::<RateLimit>(&never));
        assert!(refused::<MaxInFlight>(&never) && refused::<MaxInFlight>(&[json!(257)]));
    }
}
