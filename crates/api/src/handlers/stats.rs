//! How a webhook's deliveries went, of late.

use std::str::FromStr;

use actix_web::web::{Data, Json};
use domain::stats::Stats;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::webhooks;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Id, Query, parsed_option};
use crate::openapi::schema::schema;
use crate::openapi::{answers, values};
use crate::state::State;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// How far back: `15m`, `1h`, `7d`.
    #[serde(default, deserialize_with = "parsed_option")]
    #[param(value_type = Window, required = false, inline)]
    window: Option<Window>,
}

/// A number of minutes, hours or days, such as `15m`, `1h` or `7d`; an hour if nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    seconds: u32,
}

const LEAST: i64 = 60;
const MOST: i64 = 30 * 86_400;

/// From 1 to 43,200 minutes, 720 hours or 30 days.
const FORMS: [&str; 3] = [
    "^0*([1-9][0-9]{0,3}|[1-3][0-9]{4}|4[0-2][0-9]{3}|43[01][0-9]{2}|43200)m$",
    "^0*([1-9][0-9]?|[1-6][0-9]{2}|7[01][0-9]|720)h$",
    "^0*([1-9]|[12][0-9]|30)d$",
];

schema! { Window, json!({
    "type": "string",
    "anyOf": FORMS.map(|form| json!({"pattern": form})),
    "default": "1h",
    "examples": ["15m", "1h", "7d"],
}) }

#[derive(Serialize, ToSchema)]
#[schema(as = StatsAnswer)]
pub(crate) struct Shown {
    #[schema(schema_with = values::success)]
    status: &'static str,
    stats: Stats,
}

/// Show how a webhook's deliveries went
///
/// Of the time that ends now: outcomes, latency, a series, and what waits.
#[utoipa::path(
    get,
    path = "/api/webhooks/{id}/stats",
    operation_id = "show_stats",
    tag = "Webhooks",
    params(("id" = Uuid, Path, description = "The webhook's."), Wanted),
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "The figures.", body = Shown),
        answers::Missing,
        answers::Caller,
    )
)]
pub(crate) async fn show(
    state: Data<State>,
    Caller(client): Caller,
    Id(webhook_id): Id,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Shown>, ApiError> {
    let Window { seconds } = wanted.window.unwrap_or_default();
    let mut conn = state.connection().await?;
    let webhook = webhooks::find(&mut conn, client.id, webhook_id).await?;
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
