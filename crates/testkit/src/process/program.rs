use std::collections::BTreeMap;
use std::env;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;

use super::Process;
use crate::free_port;

/// A binary of the workspace and how it is to be started. It gets the environment that it is
/// given here and nothing of the test's, and runs in a folder of its own.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    ports: BTreeMap<String, u16>,
    files: BTreeMap<String, String>,
    readiness: Option<Readiness>,
}

#[derive(Debug, Clone)]
struct Readiness {
    port: Port,
    path: String,
}

#[derive(Debug, Clone)]
enum Port {
    Of(String),
    Number(u16),
}

/// What a program that ran to its end left.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// The binary of that name beside the running test, or in `RECADO_BIN_DIR` when that is set.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            ports: BTreeMap::new(),
            files: BTreeMap::new(),
            readiness: None,
        }
    }

    /// A service: development mode, a port of its own for `OPS_PORT`, and ready when `/readyz`
    /// there says so. Services that share a database must be given the same `ENCRYPTION_KEYS`:
    /// each would make keys of its own.
    pub fn service(name: &str) -> Self {
        Self::new(name)
            .env("APP_ENV", "development")
            .port("OPS_PORT")
            .ready("OPS_PORT", "/readyz")
    }

    #[must_use]
    pub fn arg(mut self, argument: impl ToString) -> Self {
        self.arguments.push(argument.to_string());
        self
    }

    #[must_use]
    pub fn env(mut self, variable: &str, value: impl ToString) -> Self {
        self.environment
            .insert(variable.to_owned(), value.to_string());
        self
    }

    /// Puts a file into the folder that the program runs in.
    #[must_use]
    pub fn file(mut self, name: &str, content: &str) -> Self {
        self.files.insert(name.to_owned(), content.to_owned());
        self
    }

    /// Sets the variable to a free port.
    #[must_use]
    pub fn port(mut self, variable: &str) -> Self {
        self.ports.insert(variable.to_owned(), free_port());
        self
    }

    /// [`Program::start`] waits for a 200 from this path on the port of the variable.
    #[must_use]
    pub fn ready(mut self, variable: &str, path: &str) -> Self {
        let port = Port::Of(variable.to_owned());
        self.readiness = Some(Readiness {
            port,
            path: path.to_owned(),
        });
        self
    }

    /// [`Program::start`] waits for a 200 from this path on this port.
    #[must_use]
    pub fn ready_at(mut self, port: u16, path: &str) -> Self {
        self.readiness = Some(Readiness {
            port: Port::Number(port),
            path: path.to_owned(),
        });
        self
    }

    /// [`Program::start`] waits for nothing.
    #[must_use]
    pub fn without_readiness(mut self) -> Self {
        self.readiness = None;
        self
    }

    /// Starts the program and waits until it is ready. Panics with its logs when it isn't in time.
    pub async fn start(mut self) -> Process {
        for _ in 0..3 {
            let folder = self.folder();
            let child = self.spawn(&folder);
            let mut process = Process {
                program: self.clone(),
                child,
                folder,
            };
            match process.ready().await {
                Ok(()) => return process,
                // Somebody took a port between its choice and its use.
                Err(failure) if failure.contains("Address already in use") => {
                    self.ports.values_mut().for_each(|port| *port = free_port());
                }
                Err(failure) => panic!("{failure}"),
            }
        }
        panic!("{} found its ports taken three times", self.name);
    }

    /// Runs the program to its end: for commands.
    pub async fn run(self) -> Output {
        let run = tokio::task::spawn_blocking(move || {
            let folder = self.folder();
            let output = self.command(&folder).stdin(Stdio::null()).output();
            output.unwrap_or_else(|error| panic!("{}: {error}", self.name))
        });
        let output = run.await.expect("the program can be started");
        Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn port_of(&self, variable: &str) -> u16 {
        let port = self.ports.get(variable);
        *port.unwrap_or_else(|| panic!("{} was given no port for {variable}", self.name))
    }

    pub(super) fn readiness(&self) -> Option<(u16, String)> {
        let Readiness { port, path } = self.readiness.as_ref()?;
        let port = match port {
            Port::Of(variable) => self.port_of(variable),
            Port::Number(port) => *port,
        };
        Some((port, path.clone()))
    }

    pub(super) fn spawn(&self, folder: &TempDir) -> Child {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log_file(folder));
        let log = log.expect("a log in a folder of one's own");
        let stderr = log.try_clone().expect("a second handle on the log");
        let child = self
            .command(folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(stderr)
            .spawn();
        child.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in &self.files {
            fs::write(folder.path().join(name), content).expect("a file in a folder of one's own");
        }
        folder
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "what every program needs is handed on unread"
    )]
    fn command(&self, folder: &TempDir) -> Command {
        let mut command = Command::new(self.path());
        command
            .args(&self.arguments)
            .env_clear()
            .current_dir(folder.path());
        for name in ["PATH", "HOME", "TMPDIR", "RUST_BACKTRACE"] {
            command.envs(env::var_os(name).map(|value| (name, value)));
        }
        command.envs(&self.environment);
        command.envs(
            self.ports
                .iter()
                .map(|(variable, port)| (variable, port.to_string())),
        );
        command
    }

    fn path(&self) -> PathBuf {
        let path = binaries().join(&self.name);
        assert!(
            path.is_file(),
            "{} is not built: cargo build --workspace",
            path.display()
        );
        path
    }
}

/// Where the programs lie. Test binaries lie in `deps` or `examples` below the folder of the workspace's binaries.
#[expect(
    clippy::disallowed_methods,
    reason = "tests have no configuration but this variable"
)]
pub fn binaries() -> PathBuf {
    if let Some(folder) = env::var_os("RECADO_BIN_DIR").filter(|folder| !folder.is_empty()) {
        return PathBuf::from(folder);
    }
    let test = env::current_exe().expect("a test knows its own path");
    let mut folder = test.parent().expect("an executable lies in a folder");
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder = folder.parent().expect("deps lies in a folder");
    }
    folder.to_owned()
}

fn log_file(folder: &TempDir) -> PathBuf {
    folder.path().join("log")
}

pub(super) fn logs(folder: &TempDir) -> String {
    let log = fs::read(log_file(folder)).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}
