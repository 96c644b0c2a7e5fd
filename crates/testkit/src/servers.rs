//! A PostgreSQL and a Redis of one test's own, durable as in production, to be stopped, killed
//! and stalled at will.

use std::net::TcpStream;
use std::time::Duration;
use std::{fs, thread};

use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use runtime::config::DatabaseConfig;
use runtime::postgres;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

use crate::shared::{Addresses, Script};
use crate::{Database, eventually, free_port};

/// One of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Postgres,
    Redis,
}

/// How long a server may take to start or to stop.
const LIMIT: Duration = Duration::from_secs(30);

/// A private pair of servers; gone with this value.
#[derive(Debug)]
pub struct Servers {
    script: Script,
    addresses: Addresses,
    /// The processes as of the last start.
    postgres: Pid,
    redis: Pid,
    _run_dir: TempDir,
}

impl Servers {
    /// Starts both.
    pub async fn start() -> Self {
        // PostgreSQL may run as another user than the test, who has to get in.
        let run_dir = tempfile::Builder::new()
            .prefix("recado-servers-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .expect("a temporary folder");
        let script = Script {
            run_dir: run_dir.path().to_owned(),
            postgres_port: free_port(),
            redis_port: free_port(),
            durable: true,
        };
        script.up().await;
        let addresses = script
            .addresses()
            .unwrap_or_else(|error| panic!("{error:#}"));
        let (postgres, redis) = (postgres_pid(&addresses).await, redis_pid(&addresses).await);
        Self {
            script,
            addresses,
            postgres,
            redis,
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
        // To PostgreSQL SIGINT is a fast shutdown; SIGTERM would wait for its clients.
        let signal = if server == Server::Postgres {
            Signal::INT
        } else {
            Signal::TERM
        };
        self.end(server, signal).await;
    }

    /// Ends a server with no time to write anything, and waits until it is gone.
    pub async fn crash(&self, server: Server) {
        // SIGKILL would leave PostgreSQL's children and its shared memory behind.
        let signal = if server == Server::Postgres {
            Signal::QUIT
        } else {
            Signal::KILL
        };
        self.end(server, signal).await;
    }

    /// Starts what is stopped.
    pub async fn resume(&mut self) {
        self.script.up().await;
        self.postgres = postgres_pid(&self.addresses).await;
        self.redis = redis_pid(&self.addresses).await;
    }

    /// Stops a server in good order and starts it again.
    pub async fn restart(&mut self, server: Server) {
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
        match server {
            Server::Postgres => self.postgres,
            Server::Redis => self.redis,
        }
    }

    fn port(&self, server: Server) -> u16 {
        match server {
            Server::Postgres => self.script.postgres_port,
            Server::Redis => self.script.redis_port,
        }
    }

    async fn end(&self, server: Server, signal: Signal) {
        let (pid, port) = (self.pid(server), self.port(server));
        kill_process(pid, signal).expect("the server runs");
        eventually(LIMIT, async || {
            is_gone(pid) && TcpStream::connect(("127.0.0.1", port)).is_err()
        })
        .await;
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for pid in [self.postgres, self.redis] {
            // A stopped process can't obey, and one that is gone needs nothing.
            let _ = kill_process(pid, Signal::CONT);
        }
        if let Err(error) = self.script.run("down") {
            eprintln!("private servers: {error:#}");
            assert!(thread::panicking(), "the private servers did not stop");
        }
    }
}

/// Ended, or a zombie that its parent has not asked for.
fn is_gone(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat"));
    let zombie = status.is_ok_and(|status| status.contains(") Z "));
    zombie || test_kill_process(pid).is_err()
}

async fn postgres_pid(addresses: &Addresses) -> Pid {
    #[derive(QueryableByName)]
    struct File {
        #[diesel(sql_type = Text)]
        text: String,
    }
    let config = DatabaseConfig::from_url(&addresses.database_url).expect("the script's own URL");
    let mut connection = postgres::connect(&config)
        .await
        .expect("the private PostgreSQL");
    let query = sql_query("SELECT pg_read_file('postmaster.pid') AS text");
    let file: File = query
        .get_result(&mut connection)
        .await
        .expect("the script's superuser");
    pid(file.text.lines().next())
}

async fn redis_pid(addresses: &Addresses) -> Pid {
    let client = redis::Client::open(addresses.redis_url.as_str()).expect("the script's own URL");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("the private Redis");
    let mut info = redis::cmd("INFO");
    let info: String = info
        .arg("server")
        .query_async(&mut connection)
        .await
        .expect("INFO");
    pid(info
        .lines()
        .find_map(|line| line.strip_prefix("process_id:")))
}

fn pid(text: Option<&str>) -> Pid {
    let number = text.and_then(|text| text.trim().parse().ok());
    number
        .and_then(Pid::from_raw)
        .expect("a running server has a process id")
}
