use std::time::Duration;

use anyhow::Context;
use reqwest::Client;
use rustix::process::Pid;
use serde::de::DeserializeOwned;
use testkit::{Process, Program, eventually, free_port};
use uuid::Uuid;

use super::{Summary, host};

/// What a look at the log may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The receiver's process, and what it noted.
#[derive(Debug)]
pub(crate) struct Sink {
    process: Process,
    port: u16,
    http: Client,
}

impl Sink {
    /// Starts it, on so many hosts besides 127.0.0.1.
    pub(crate) async fn start(hosts: u16) -> anyhow::Result<Self> {
        runtime::tls::install_provider();
        let port = free_port();
        let program = Program::new("recado-bench").arg("sink");
        let program = program.arg("--port").arg(port).arg("--hosts").arg(hosts);
        Ok(Self {
            process: program.ready_at(port, "/_sink/count").start().await,
            port,
            http: Client::builder().no_proxy().timeout(LIMIT).build()?,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// The URL of a path, which starts with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The URL of a path at one of the further hosts.
    pub(crate) fn url_at(&self, number: u16, path: &str) -> String {
        format!("http://{}:{}{path}", host(number), self.port)
    }

    /// Forgets what arrived.
    pub(crate) async fn reset(&self) -> anyhow::Result<()> {
        let sent = self.http.post(self.url("/_sink/reset")).send().await;
        sent.and_then(|answer| answer.error_for_status())
            .context("the receiver's reset")?;
        Ok(())
    }

    /// Waits until so many requests were answered.
    pub(crate) async fn holds(&self, count: usize, limit: Duration) {
        eventually(limit, async || match self.count().await {
            Ok(now) if now >= count => Ok(()),
            Ok(now) => Err(format!("{now} of {count} arrived")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await;
    }

    /// How many requests were answered.
    pub(crate) async fn count(&self) -> anyhow::Result<usize> {
        self.ask("/_sink/count").await
    }

    pub(crate) async fn summary(&self) -> anyhow::Result<Summary> {
        self.ask("/_sink/summary").await
    }

    /// Each arrival that was answered: which event, and when, in microseconds since 1970.
    pub(crate) async fn times(&self) -> anyhow::Result<Vec<(Uuid, u64)>> {
        self.ask("/_sink/times").await
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.http.get(self.url(path)).send().await?;
        let body = answer.error_for_status()?.bytes().await?;
        serde_json::from_slice(&body).with_context(|| path.to_owned())
    }
}
