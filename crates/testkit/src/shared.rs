//! The servers that all tests share: those of `TEST_DATABASE_URL` and `TEST_REDIS_URL` where these
//! are set (`make test` sets them), else the instance in `.run/test`, which is started when it
//! isn't up. It is fast and not durable; a test that stops or flushes a server starts its own
//! pair ([`crate::Servers`]).

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::free_port;

/// Where a pair of servers answers.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub database_url: String,
    pub redis_url: String,
}

impl Addresses {
    /// The shared servers; the first caller of all starts them.
    pub async fn shared() -> Self {
        let found = tokio::task::spawn_blocking(find)
            .await
            .expect("finding servers never panics");
        found.unwrap_or_else(|error| panic!("no servers for tests: {error:#}"))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests have no configuration but these variables"
)]
fn find() -> anyhow::Result<Addresses> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    if let (Some(database_url), Some(redis_url)) =
        (variable("TEST_DATABASE_URL"), variable("TEST_REDIS_URL"))
    {
        return Ok(Addresses {
            database_url,
            redis_url,
        });
    }
    let port = |name, default| variable(name).map_or(Ok(default), |port| port.parse());
    let script = Script {
        run_dir: workspace().join(".run/test"),
        postgres_port: port("RECADO_TEST_POSTGRES_PORT", 55433)?,
        redis_port: port("RECADO_TEST_REDIS_PORT", 56380)?,
        durable: false,
        shown: false,
    };
    fs::create_dir_all(&script.run_dir)?;
    // Tests are processes of their own and start at the same moment.
    let lock = File::create(script.run_dir.join("testkit.lock"))?;
    lock.lock()?;
    script.run("up")?;
    script.addresses()
}

/// The root of the checkout that the test was built in.
pub(crate) fn workspace() -> PathBuf {
    let this_crate = Path::new(env!("CARGO_MANIFEST_DIR"));
    this_crate
        .ancestors()
        .nth(2)
        .expect("crates/testkit lies two levels deep")
        .to_owned()
}

/// `deploy/local/servers`, for one pair of servers.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) run_dir: PathBuf,
    pub(crate) postgres_port: u16,
    pub(crate) redis_port: u16,
    pub(crate) durable: bool,
    /// Whether what it says as it works, such as what it installs, goes to stderr at once.
    pub(crate) shown: bool,
}

impl Script {
    /// For a pair on free ports.
    pub(crate) fn new(run_dir: &Path, durable: bool) -> Self {
        Self {
            run_dir: run_dir.to_owned(),
            postgres_port: free_port(),
            redis_port: free_port(),
            durable,
            shown: false,
        }
    }

    /// Runs a command of the script and returns what it prints.
    pub(crate) fn run(&self, command: &str) -> anyhow::Result<String> {
        let output = Command::new(workspace().join("deploy/local/servers"))
            .args(command.split(' '))
            .env("RECADO_RUN_DIR", &self.run_dir)
            .env("RECADO_POSTGRES_PORT", self.postgres_port.to_string())
            .env("RECADO_REDIS_PORT", self.redis_port.to_string())
            .env("RECADO_DURABLE", if self.durable { "1" } else { "0" })
            .stderr(if self.shown {
                Stdio::inherit()
            } else {
                Stdio::piped()
            })
            .output()
            .context("deploy/local/servers")?;
        ensure!(
            output.status.success(),
            "deploy/local/servers {command}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a command without blocking the tests' runtime.
    pub(crate) async fn command(&self, command: &str) {
        let (this, command) = (self.clone(), command.to_owned());
        let run = tokio::task::spawn_blocking(move || this.run(&command)).await;
        run.expect("the script's errors are returned")
            .unwrap_or_else(|error| panic!("{error:#}"));
    }

    pub(crate) fn addresses(&self) -> anyhow::Result<Addresses> {
        let text = self.run("env")?;
        let value = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            let line = lines.find(|(key, _)| key.trim_start_matches("export ") == name);
            let (_, value) = line.with_context(|| format!("servers env has no {name}"))?;
            anyhow::Ok(value.trim_matches(['\'', '"']).to_owned())
        };
        Ok(Addresses {
            database_url: value("DATABASE_URL")?,
            redis_url: value("REDIS_URL")?,
        })
    }
}

/// The URL of another database of the same server, PostgreSQL or Redis.
pub(crate) fn sibling(url: &str, name: &str) -> String {
    let (base, query) = url
        .split_once('?')
        .map_or((url, None), |(base, query)| (base, Some(query)));
    let scheme_end = base.find("://").map_or(0, |at| at + 3);
    let server = base[scheme_end..].split('/').next().unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{server}/{name}{query}", &base[..scheme_end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sibling_keeps_all_but_the_name() {
        let cases = [
            ("postgres://u:p@h:1/a", "postgres://u:p@h:1/b"),
            (
                "postgres://h/a?sslmode=disable",
                "postgres://h/b?sslmode=disable",
            ),
            ("postgres://h", "postgres://h/b"),
        ];
        for (url, expected) in cases {
            assert_eq!(sibling(url, "b"), expected);
        }
    }
}
