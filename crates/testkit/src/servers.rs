//! A PostgreSQL and a Redis of one test's own, to be stopped, crashed and frozen at will. What is
//! committed survives every crash of PostgreSQL, as in production, though not one of the machine:
//! only fsync is off, which no test can tell but by its speed. Redis forgets all when it stops.
//! The durable pair has fsync and Redis's append-only file as well.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::{fs, thread};

use diesel_async::SimpleAsyncConnection;
use runtime::config::DatabaseConfig;
use runtime::postgres;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::shared::{Addresses, Script};
use crate::{Database, freeze};

/// One of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Postgres,
    Redis,
}

impl Server {
    const ALL: [Self; 2] = [Self::Postgres, Self::Redis];

    fn name(self) -> &'static str {
        match self {
            Server::Postgres => "postgres",
            Server::Redis => "redis",
        }
    }
}

/// A private pair of servers; gone with this value.
#[derive(Debug)]
pub struct Servers {
    script: Script,
    addresses: Addresses,
    /// Unless the folder was given.
    _run_dir: Option<TempDir>,
}

impl Servers {
    /// Starts both.
    pub async fn start() -> Self {
        let servers = Self::start_only(Server::Redis).await;
        servers.resume(Server::Postgres).await;
        commit_synchronously(&servers.addresses.database_url).await;
        servers
    }

    /// Starts one, for a test that has no use for the other.
    pub async fn start_only(server: Server) -> Self {
        let run_dir = temporary_folder();
        let script = Script::new(run_dir.path(), false);
        let command = format!("start-{}", server.name());
        Self::by(script, &command, Some(run_dir)).await
    }

    /// Starts both with all that makes them durable, as in production.
    pub async fn start_durable() -> Self {
        let run_dir = temporary_folder();
        let script = Script::new(run_dir.path(), true);
        Self::by(script, "up", Some(run_dir)).await
    }

    /// Like [`Servers::start_durable`], in a folder that others know; what servers left there that
    /// could not be stopped in order is deleted first. What is installed and started is shown.
    pub async fn start_durable_in(run_dir: &Path) -> Self {
        let mut script = Script::new(run_dir, true);
        script.shown = true;
        script.command("reset").await;
        Self::by(script, "up", None).await
    }

    /// Ends the servers of a folder and deletes their data, if there are any.
    pub async fn end_in(run_dir: &Path) {
        Script::new(run_dir, true).command("reset").await;
    }

    async fn by(script: Script, command: &str, run_dir: Option<TempDir>) -> Self {
        script.command(command).await;
        let addresses = script
            .addresses()
            .unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            script,
            addresses,
            _run_dir: run_dir,
        }
    }

    /// A migrated database on this pair's PostgreSQL.
    pub async fn database(&self) -> Database {
        Database::create_on(&self.addresses.database_url).await
    }

    /// The database that administers the others.
    pub fn database_url(&self) -> &str {
        &self.addresses.database_url
    }

    pub fn redis_url(&self) -> &str {
        &self.addresses.redis_url
    }

    /// Stops a server in good order and waits until it is gone.
    pub async fn stop(&self, server: Server) {
        self.script
            .command(&format!("stop-{}", server.name()))
            .await;
    }

    /// Ends a server that has no time to write anything, and waits until it is gone.
    pub async fn crash(&self, server: Server) {
        self.script
            .command(&format!("stop-{} immediate", server.name()))
            .await;
    }

    /// Starts a server that was stopped, or does nothing.
    pub async fn resume(&self, server: Server) {
        self.script
            .command(&format!("start-{}", server.name()))
            .await;
    }

    /// Stops a server in good order and starts it again.
    pub async fn restart(&self, server: Server) {
        self.script
            .command(&format!("restart-{}", server.name()))
            .await;
    }

    /// Makes a server hang: it holds its connections and takes new ones, and answers nothing,
    /// until [`Servers::thaw`]. (Of PostgreSQL only the postmaster hangs: those who are connected
    /// are served on.)
    pub async fn freeze(&self, server: Server) {
        freeze::freeze(self.pid(server)).await;
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self, server: Server) {
        freeze::thaw(self.pid(server));
    }

    /// The server's process: of PostgreSQL the postmaster.
    pub fn pid(&self, server: Server) -> Pid {
        self.find_pid(server)
            .unwrap_or_else(|| panic!("{} does not run", server.name()))
    }

    fn find_pid(&self, server: Server) -> Option<Pid> {
        let file = self.script.run_dir.join("pids").join(server.name());
        Pid::from_raw(fs::read_to_string(file).ok()?.trim().parse().ok()?)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for pid in Server::ALL
            .into_iter()
            .filter_map(|server| self.find_pid(server))
        {
            // A frozen process can't obey, and one that has ended needs nothing.
            let _ = kill_process(pid, Signal::CONT);
        }
        // Unlike down, it also deletes data that lies outside of the run dir.
        if let Err(error) = self.script.run("reset") {
            eprintln!("private servers: {error:#}");
            assert!(thread::panicking(), "the private servers did not stop");
        }
    }
}

/// PostgreSQL may run as another user than the test, who has to get in.
fn temporary_folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("recado-servers-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("a temporary folder")
}

async fn commit_synchronously(admin_url: &str) {
    let config = DatabaseConfig::from_url(admin_url).unwrap_or_else(|error| panic!("{error}"));
    let mut admin = postgres::connect(&config)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    for change in [
        "ALTER SYSTEM SET synchronous_commit = on",
        "SELECT pg_reload_conf()",
    ] {
        let done = admin.batch_execute(change).await;
        done.unwrap_or_else(|error| panic!("{change}: {error}"));
    }
}
