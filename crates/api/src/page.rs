//! How much of a list a request wants.

use serde::{Deserialize, Deserializer, de};
use serde_json::json;

use crate::openapi::schema::schema;

const MOST: u8 = 100;

/// Items of one page: 50, or from 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(u8);

schema! { Limit, json!({"type": "integer", "minimum": 1, "maximum": MOST, "default": 50}) }

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}

impl Limit {
    /// What to ask the database for, so that it shows whether the list goes on.
    pub(crate) fn and_one_more(self) -> i64 {
        i64::from(self.0) + 1
    }

    /// Takes the one more away; whether it was there.
    pub(crate) fn cut<T>(self, items: &mut Vec<T>) -> bool {
        let goes_on = items.len() > usize::from(self.0);
        items.truncate(usize::from(self.0));
        goes_on
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        u8::try_from(number)
            .ok()
            .filter(|number| (1..=MOST).contains(number))
            .map(Self)
            .ok_or_else(|| de::Error::custom(format_args!("must be from 1 to {MOST}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_page_has_from_1_to_100_items() {
        for (value, good) in [
            (0, false),
            (1, true),
            (100, true),
            (101, false),
            (-1, false),
        ] {
            assert_eq!(from_value::<Limit>(json!(value)).is_ok(), good, "{value}");
        }
    }

    #[test]
    fn the_one_more_is_never_shown() {
        let mut items = vec![1, 2, 3];
        assert!(Limit(2).cut(&mut items));
        assert_eq!(items, [1, 2]);
        assert!(!Limit(2).cut(&mut items));
    }
}
