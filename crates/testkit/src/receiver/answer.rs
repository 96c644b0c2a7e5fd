use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// How a receiver answers a request. In JSON every field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    pub status: u16,
    /// Milliseconds between the request's last byte and the answer's first.
    pub delay_ms: u64,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub ending: Ending,
}

/// How an answer ends, if it does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// As HTTP wants it.
    Whole,
    /// Nothing is ever answered, and the connection stays open.
    Hang,
    /// The connection is cut without a byte of an answer.
    Close,
    /// Status, headers and the body come, more body is promised, and the connection is cut.
    Cut,
    /// The body comes so often, with so many milliseconds before each time.
    Drip { times: u64, pause_ms: u64 },
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            status: 200,
            delay_ms: 0,
            headers: BTreeMap::new(),
            body: "ok".to_owned(),
            ending: Ending::Whole,
        }
    }
}

impl Answer {
    /// An answer with this status.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// 200, which is what a receiver answers unless it is told otherwise.
    pub fn ok() -> Self {
        Self::default()
    }

    /// No answer, ever.
    pub fn hang() -> Self {
        Self {
            ending: Ending::Hang,
            ..Self::default()
        }
    }

    /// A connection that closes instead of an answer.
    pub fn close() -> Self {
        Self {
            ending: Ending::Close,
            ..Self::default()
        }
    }

    /// A connection that closes in the middle of the body.
    pub fn cut() -> Self {
        Self {
            ending: Ending::Cut,
            ..Self::default()
        }
    }

    /// A body of `times` times `chunk`, with a pause before each.
    pub fn drip(chunk: &str, times: u64, pause: Duration) -> Self {
        let pause_ms = pause.as_millis().try_into().unwrap_or(u64::MAX);
        Self::default()
            .body(chunk)
            .ending(Ending::Drip { times, pause_ms })
    }

    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        Self {
            delay_ms: delay.as_millis().try_into().unwrap_or(u64::MAX),
            ..self
        }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    #[must_use]
    pub fn body(self, body: impl Into<String>) -> Self {
        Self {
            body: body.into(),
            ..self
        }
    }

    #[must_use]
    pub fn ending(self, ending: Ending) -> Self {
        Self { ending, ..self }
    }
}
