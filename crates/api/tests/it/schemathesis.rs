//! Some thousand requests that schemathesis makes out of the API's description, good ones and bad ones, to the
//! real program. It finds nothing: no 5xx, no answer that the description does not know, no good request that
//! is refused, no bad one that is taken. What it is told to let pass stands in `schemathesis.toml`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use testkit::{Database, RedisDatabase};
use tokio::process::Command;
use tokio::time::timeout;

use crate::process::{TOKEN, service};

/// For what has to be fetched first, and for the run itself, on a machine that does other things too.
const INSTALLING: Duration = Duration::from_secs(240);
const RUNNING: Duration = Duration::from_secs(480);

const LEAST_CASES: u32 = 2000;

/// What a program printed, if it succeeded. Killed when it takes too long.
async fn printed(command: &mut Command, limit: Duration) -> String {
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let done = timeout(limit, run).await;
    let output = done.expect("it ends in time").unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}{told}", output.status);
    text
}

/// The path of the program, which is brought if it isn't there.
async fn install() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let mut script = Command::new(root.unwrap().join("deploy/local/schemathesis"));
    printed(&mut script, INSTALLING).await.trim().to_owned()
}

/// Of the line that counts them: `Test cases:`, and `2546 generated, 2546 passed, …` below.
fn cases(report: &str) -> u32 {
    let (_, counted) = report.rsplit_once("Test cases:").expect("it counts");
    counted.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn schemathesis_finds_nothing() {
    let program = install().await;
    let (database, redis) = (Database::create().await, RedisDatabase::acquire().await);
    let process = service(database.url(), redis.url())
        // Nobody is there to wait for.
        .env("GATEWAY_WAIT", "50")
        .env("WEBHOOK_TIMEOUT", "1")
        .env("RATE_LIMIT_PER_CLIENT", "0")
        .env("RATE_LIMIT_PER_ADDRESS", "0")
        .start()
        .await;
    let folder = tempfile::tempdir().unwrap();
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/schemathesis.toml");
    let mut command = Command::new(program);
    command
        .current_dir(folder.path())
        .arg("--config-file")
        .arg(settings)
        .arg("run")
        .arg(format!("{}/openapi.json", process.url("PORT")))
        .arg("--header")
        .arg(format!("Authorization: Bearer {TOKEN}"))
        // One worker: with several, the parser of Python 3.11 fails now and then (gh-106905).
        .args(["--max-examples", "40", "--workers", "1"])
        .args(["--continue-on-failure", "--request-timeout", "30"])
        .args(["--generation-database", "none", "--seed", "1"])
        .arg("--no-color");
    let report = printed(&mut command, RUNNING).await;
    assert!(cases(&report) >= LEAST_CASES, "{report}");
}
