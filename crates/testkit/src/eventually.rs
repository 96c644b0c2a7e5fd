//! Waiting on a condition, which is how a test waits.

use std::fmt::Display;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// What a condition may answer: `bool`, or an `Option` or `Result` with a value to go on with.
pub trait Condition {
    type Met;

    /// The value, or why it is not there yet.
    fn met(self) -> Result<Self::Met, String>;
}

impl Condition for bool {
    type Met = ();

    fn met(self) -> Result<(), String> {
        if self {
            Ok(())
        } else {
            Err("false".to_owned())
        }
    }
}

impl<T> Condition for Option<T> {
    type Met = T;

    fn met(self) -> Result<T, String> {
        self.ok_or_else(|| "None".to_owned())
    }
}

impl<T, E: Display> Condition for Result<T, E> {
    type Met = T;

    fn met(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Asks again and again until the condition is met, and panics with its last answer when it is
/// not within `limit`.
#[track_caller]
pub fn eventually<C: Condition>(
    limit: Duration,
    mut condition: impl AsyncFnMut() -> C,
) -> impl Future<Output = C::Met> {
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(2);
        let mut last = "no answer".to_owned();
        loop {
            match timeout_at(deadline, condition()).await.map(Condition::met) {
                Ok(Ok(value)) => return value,
                Ok(Err(reason)) => last = reason,
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                panic!("{caller}: not so within {limit:?}; the last answer: {last}");
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}
