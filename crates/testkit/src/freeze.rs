//! SIGSTOP that has taken effect: the signal alone returns while threads on other processors are
//! still at work.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// Stops a process and waits until each of its threads stands still.
pub(crate) async fn freeze(pid: Pid) {
    kill_process(pid, Signal::STOP).expect("the process runs");
    eventually(Duration::from_secs(10), async || {
        stands_still(pid).unwrap_or(false)
    })
    .await;
}

/// Lets a frozen process go on.
pub(crate) fn thaw(pid: Pid) {
    kill_process(pid, Signal::CONT).expect("the process runs");
}

fn stands_still(pid: Pid) -> std::io::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // "pid (name) state …", where T is stopped.
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        if state != Some('T') {
            return Ok(false);
        }
    }
    Ok(true)
}
