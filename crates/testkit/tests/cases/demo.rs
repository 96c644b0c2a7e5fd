use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use testkit::{Program, Signal, eventually};

use super::alone;

const LONG: Duration = Duration::from_secs(60);

fn demo(run_dir: &Path) -> Program {
    Program::new("recado-demo")
        .arg("--run-dir")
        .arg(run_dir.display())
}

/// One that PostgreSQL, which may run as another user, can enter.
fn run_dir() -> TempDir {
    let mut folder = tempfile::Builder::new();
    folder
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .unwrap()
}

#[tokio::test]
async fn the_demo_shows_what_it_promises() {
    let _alone = alone().await;
    let folder = run_dir();
    let done = demo(folder.path()).arg("--check").run().await;
    assert!(done.status.success(), "{}\n{}", done.stdout, done.stderr);
    let last = done.stdout.lines().last().unwrap();
    let sent: usize = last
        .strip_prefix("demo: sent ")
        .and_then(|rest| rest.split(',').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{last}"));
    assert!(sent >= 5, "{last}");
    let expected =
        format!("demo: sent {sent}, delivered {sent}, lost 0, duplicates 0, signature ok");
    assert_eq!(last, expected);
}

#[tokio::test]
async fn a_demo_leaves_nothing_behind_and_a_second_one_says_that_the_first_runs() {
    let _alone = alone().await;
    let folder = run_dir();
    let mut first = demo(folder.path()).start().await;
    eventually(LONG, async || {
        first.logs().contains("stays up until Ctrl-C")
    })
    .await;
    let second = demo(folder.path()).arg("--check").run().await;
    assert_eq!(second.status.code(), Some(1));
    assert!(
        second.stdout.contains("another demo runs in"),
        "{}",
        second.stdout
    );
    let logs = first.logs();
    let pids: Vec<_> = logs
        .lines()
        .filter_map(|line| line.split_once(" pid "))
        .collect();
    let pids: Vec<_> = pids
        .into_iter()
        .map(|(_, pid)| Path::new("/proc").join(pid))
        .collect();
    let alive = || pids.iter().filter(|pid| pid.exists()).count();
    // One dispatcher was killed.
    assert_eq!((pids.len(), alive()), (8, 7), "{logs}");
    first.signal(Signal::INT);
    assert!(first.wait().await.success());
    // The servers are nobody's children: they are there until init has taken note of their end.
    eventually(LONG, async || alive() == 0).await;
}
