//! How a webhook's deliveries went, of late.

use std::str::FromStr;

use actix_web::web::{Data, Json};
use domain::stats::Stats;
use serde::{Deserialize, Serialize};

use super::webhooks;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Id, Query, parsed_option};
use crate::state::State;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    #[serde(default, deserialize_with = "parsed_option")]
    window: Option<Window>,
}

/// A number of minutes, hours or days, such as `15m`, `1h` or `7d`; an hour if nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    seconds: u32,
}

const LEAST: i64 = 60;
const MOST: i64 = 30 * 86_400;

#[derive(Serialize)]
pub(crate) struct Shown {
    status: &'static str,
    stats: Stats,
}

pub(crate) async fn show(
    state: Data<State>,
    Caller(client): Caller,
    Id(webhook_id): Id,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Shown>, ApiError> {
    let Window { seconds } = wanted.window.unwrap_or_default();
    let webhook = webhooks::find(&state, client.id, webhook_id).await?;
    let mut conn = state.connection().await?;
    Ok(Json(Shown {
        status: "success",
        stats: Stats::load(&mut conn, client.id, webhook.id, seconds).await?,
    }))
}

impl Default for Window {
    fn default() -> Self {
        Self { seconds: 3600 }
    }
}

impl FromStr for Window {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be a number of minutes, hours or days, such as 15m, 1h or 7d";
        let unit = match text.as_bytes().last() {
            Some(b'm') => 60,
            Some(b'h') => 3600,
            Some(b'd') => 86_400,
            _ => return Err(FORM),
        };
        let number = &text[..text.len() - 1];
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(FORM);
        }
        let number: i64 = number.parse().unwrap_or(i64::MAX);
        let seconds = number.saturating_mul(unit);
        u32::try_from(seconds)
            .ok()
            .filter(|_| (LEAST..=MOST).contains(&seconds))
            .map(|seconds| Self { seconds })
            .ok_or("must be from 1m to 30d")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_written_with_its_unit() {
        for (text, seconds) in [
            ("1m", 60),
            ("15m", 900),
            ("1h", 3600),
            ("24h", 86_400),
            ("7d", 7 * 86_400),
            ("30d", 30 * 86_400),
            ("43200m", 30 * 86_400),
        ] {
            assert_eq!(text.parse(), Ok(Window { seconds }), "{text}");
        }
        for text in [
            "",
            "h",
            "1",
            "0m",
            "-1h",
            "+1h",
            "1.5h",
            " 1h",
            "1 h",
            "1H",
            "60s",
            "31d",
            "43201m",
            "99999999999999999999h",
            "1hé",
            "é",
        ] {
            assert!(text.parse::<Window>().is_err(), "{text:?}");
        }
    }
}
