//! The binary itself.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::harness::{Control, Phone, eventually};

const CONTACT: &str = "5511888888888";

fn command(listen: &str, state: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recado-simulator"));
    command.args(["--listen", listen]).stderr(Stdio::piped());
    if let Some(state) = state {
        command.env("SIMULATOR_STATE", state);
    }
    command
}

/// Starts the binary and waits until it answers.
pub(crate) async fn start(address: &str, state: Option<&Path>) -> Child {
    let child = command(address, state)
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    eventually("the port", || async {
        tokio::net::TcpStream::connect(address).await.ok()
    })
    .await;
    child
}

pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn output(command: &mut Command) -> Output {
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_simulator_comes_back_with_every_unacknowledged_message() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let control = Control::at(&address);
    let mut child = start(&address, Some(dir.path())).await;
    let mut phone = Phone::start(&address).await;
    let number = phone.link(&control, None).await;
    let mut ids = Vec::new();
    for round in 0..3 {
        let request = json!({"to": number, "from": [CONTACT, "5511888880002"],
            "text": format!("round {round}"), "count": 200});
        ids.extend(control.send(request).await);
        child.kill().unwrap();
        child.wait().unwrap();
        child = start(&address, Some(dir.path())).await;
    }
    // The client's hook is at least once: it gets a message again when the connection dies
    // between its commit and the receipt.
    eventually("every message", || async {
        let received = phone.received();
        let missing = |id: &&String| !received.iter().any(|m| m.info.id == **id);
        ids.iter().find(missing).is_none().then_some(())
    })
    .await;
    eventually("all receipts", || async {
        let all = control.get(&format!("/admin/messages?to={number}")).await;
        let all = all.as_array().unwrap();
        let acked = all.iter().filter(|m| !m["acked_at"].is_null());
        (acked.count() == ids.len()).then_some(())
    })
    .await;
    let stats = control.get("/admin/stats").await;
    assert_eq!(stats["retry_receipts"], 0, "a ratchet went back: {stats}");
    assert_eq!(stats["resends"], 0);
    phone.stop().await;
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_cleanly() {
    let address = free_address();
    let mut child = start(&address, None).await;
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap());
    assert_eq!(status.await.unwrap().code(), Some(0));
}

#[test]
fn a_taken_port_is_one_line_and_exit_code_1() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = output(&mut command(&address, None));
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains(&format!("cannot listen on {address}")),
        "{text}"
    );
}
