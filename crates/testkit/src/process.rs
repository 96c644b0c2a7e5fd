//! The real binaries as processes: given an environment, waited for, signalled, killed.

mod program;

use std::net::Ipv4Addr;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{eventually, freeze};
pub use program::{Output, Program, binaries};

/// How long a process may take to become ready, or to end after it was told to.
const LIMIT: Duration = Duration::from_secs(30);

/// A running program. Killed with this value; its logs are shown when the test fails.
#[derive(Debug)]
pub struct Process {
    program: Program,
    child: Child,
    /// Its working folder, which has no `.env`, and its log.
    folder: TempDir,
}

impl Process {
    /// The process's id.
    pub fn pid(&self) -> Pid {
        let id = i32::try_from(self.child.id()).expect("process ids fit");
        Pid::from_raw(id).expect("no process has id 0")
    }

    /// The port chosen for a variable of [`Program::port`].
    pub fn port(&self, variable: &str) -> u16 {
        self.program.port_of(variable)
    }

    /// `http://127.0.0.1:` and the port chosen for the variable.
    pub fn url(&self, variable: &str) -> String {
        format!("http://127.0.0.1:{}", self.port(variable))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process was not waited for yet");
    }

    /// SIGSTOP, and waits until it stands still.
    pub async fn freeze(&self) {
        freeze::freeze(self.pid()).await;
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        freeze::thaw(self.pid());
    }

    /// Waits for the process to end by itself.
    pub async fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually(LIMIT, async || {
            child.try_wait().expect("a child can be asked")
        })
        .await
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait().await
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.wait().await;
    }

    /// Starts the program again once this process has ended: same environment, same ports, same
    /// working folder, one log.
    pub async fn start_again(&mut self) {
        assert!(
            matches!(self.child.try_wait(), Ok(Some(_))),
            "the process still runs"
        );
        self.child = self.program.spawn(&self.folder);
        self.ready()
            .await
            .unwrap_or_else(|failure| panic!("{failure}"));
    }

    /// All that the process has written to stdout and stderr.
    pub fn logs(&self) -> String {
        program::logs(&self.folder)
    }

    /// Whether the process has not ended.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the readiness address answers 200; an error when the process ends instead.
    async fn ready(&mut self) -> Result<(), String> {
        let Some((port, path)) = self.program.readiness() else {
            return Ok(());
        };
        let (name, folder, child) = (self.program.name(), &self.folder, &mut self.child);
        eventually(LIMIT, async || {
            if let Ok(Some(status)) = child.try_wait() {
                let logs = program::logs(folder);
                return Ok(Err(format!(
                    "{name} ended before it was ready: {status}\n{logs}"
                )));
            }
            match answers_ok(port, &path).await {
                Ok(true) => Ok(Ok(())),
                Ok(false) | Err(_) => {
                    Err(format!("{name} is not ready:\n{}", program::logs(folder)))
                }
            }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let logs = self.logs();
            let from = logs
                .char_indices()
                .rev()
                .filter(|(_, letter)| *letter == '\n')
                .nth(200);
            let tail = &logs[from.map_or(0, |(at, _)| at)..];
            eprintln!("--- {} wrote at last:{tail}---", self.program.name());
        }
    }
}

/// Asks over plain HTTP, without a client that would have to be configured.
async fn answers_ok(port: u16, path: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    Ok(head.ends_with(b" 200"))
}
