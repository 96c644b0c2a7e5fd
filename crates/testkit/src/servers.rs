//! A PostgreSQL and a Redis of one test's own, durable as in production, to be stopped, crashed
//! and frozen at will.

use std::os::unix::fs::PermissionsExt;
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::shared::{Addresses, Script};
use crate::{Database, free_port};

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
    _run_dir: TempDir,
}

impl Servers {
    /// Starts both.
    pub async fn start() -> Self {
        // PostgreSQL may run as another user than the test, who has to get in.
        let run_dir = tempfile::Builder::new()
            .prefix("recado-servers-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a temporary folder");
        let script = Script {
            run_dir: run_dir.path().to_owned(),
            postgres_port: free_port(),
            redis_port: free_port(),
            durable: true,
        };
        script.command("up").await;
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

    /// Starts what is stopped.
    pub async fn resume(&self) {
        self.script.command("up").await;
    }

    /// Stops a server in good order and starts it again.
    pub async fn restart(&self, server: Server) {
        self.stop(server).await;
        self.resume().await;
    }

    /// Makes a server hang: it holds its connections and takes new ones, and answers nothing,
    /// until [`Servers::thaw`]. (Of PostgreSQL only the postmaster hangs: those who are connected
    /// are served on.)
    pub fn freeze(&self, server: Server) {
        kill_process(self.pid(server), Signal::STOP).expect("the server runs");
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self, server: Server) {
        kill_process(self.pid(server), Signal::CONT).expect("the server runs");
    }

    fn pid(&self, server: Server) -> Pid {
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
