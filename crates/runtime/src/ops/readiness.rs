use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::future::Future;
use std::time::Duration;

use diesel_async::RunQueryDsl;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use tokio::time::timeout;

use crate::{postgres, redis};

/// What one check may take before it counts as failed.
const LIMIT: Duration = Duration::from_secs(1);

type Check = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What a process needs to be able to work: named checks, all of which must pass.
#[derive(Default)]
pub struct Readiness {
    checks: Vec<(&'static str, Check)>,
}

impl Readiness {
    /// Nothing to check: always ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, which is run at each request, for at most a second, beside the others.
    #[must_use]
    pub fn check<F, Fut, E>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        let check = move || {
            let running = check();
            async move { running.await.map_err(|error| error.to_string()) }.boxed()
        };
        self.checks.push((name, Box::new(check)));
        self
    }

    /// Adds the check `postgres`: the pool gives a connection that answers.
    #[must_use]
    pub fn postgres(self, pool: postgres::Pool) -> Self {
        self.check("postgres", move || {
            let pool = pool.clone();
            async move {
                let mut connection = pool.get().await.map_err(|error| error.to_string())?;
                let answer = diesel::sql_query("SELECT 1").execute(&mut connection).await;
                answer.map(drop).map_err(|error| error.to_string())
            }
        })
    }

    /// Adds the check `redis`: the pool gives a connection that answers.
    #[must_use]
    pub fn redis(self, pool: redis::Pool) -> Self {
        self.check("redis", move || {
            let pool = pool.clone();
            async move {
                let mut connection = pool.get().await.map_err(|error| error.to_string())?;
                let answer = ::redis::cmd("PING").exec_async(&mut connection).await;
                answer.map_err(|error| error.to_string())
            }
        })
    }

    /// Runs all checks, at the same time.
    pub async fn report(&self) -> Report {
        let checks = self.checks.iter().map(|(name, check)| async {
            let result = timeout(LIMIT, check()).await;
            let late = || Err(format!("no answer within {} s", LIMIT.as_secs()));
            (*name, result.unwrap_or_else(|_| late()))
        });
        let results = join_all(checks).await;
        let ready = results.iter().all(|(_, result)| result.is_ok());
        let text = |result: Result<(), String>| result.err().unwrap_or_else(|| "ok".to_owned());
        Report {
            status: if ready {
                Status::Ok
            } else {
                Status::Unavailable
            },
            checks: results
                .into_iter()
                .map(|(name, result)| (name, text(result)))
                .collect(),
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.checks.iter().map(|(name, _)| name))
            .finish()
    }
}

/// The answer of `/readyz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub status: Status,
    /// By the check's name: `ok`, or what is wrong.
    pub checks: BTreeMap<&'static str, String>,
}

impl Report {
    /// The report of a process that is on its way out, whose checks no longer matter.
    pub(super) fn stopping() -> Self {
        Self {
            status: Status::Stopping,
            checks: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    Unavailable,
    Stopping,
}
