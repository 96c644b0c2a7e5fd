//! `docs/QUICKSTART.md`, run as it stands by somebody who has just started Recado.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use testkit::system::{Settings, System};
use tokio::process::Command;
use tokio::time::timeout;

use crate::alone;

const PAGE: &str = include_str!("../../../../docs/QUICKSTART.md");
const LIMIT: Duration = Duration::from_secs(120);

/// What the page has the reader type, but for the start of what runs here already.
fn script() -> String {
    let blocks = PAGE.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    blocks.filter(|block| !block.starts_with("make")).collect()
}

#[tokio::test]
async fn the_quickstart_leads_from_no_token_to_a_delivered_message() {
    let _alone = alone().await;
    let system = System::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".run")).unwrap();
    std::fs::write(folder.path().join(".run/env"), system.env()).unwrap();
    // As `make up` leaves them.
    let target = folder.path().join("target");
    std::fs::create_dir(&target).unwrap();
    std::os::unix::fs::symlink(testkit::binaries(), target.join("release")).unwrap();

    let run = Command::new("bash")
        .args(["-eu", "-o", "pipefail", "-c", &script()])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let done = timeout(LIMIT, run).await.expect("it ends").unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{}\n{out}\n{err}", done.status);

    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let json = |name: &str| -> Value { serde_json::from_str(&read(name)).unwrap() };
    let event = &json("event.json")["event"];
    assert_eq!(
        (
            &event["status"],
            &event["content"],
            &event["attempts"][0]["http_status"]
        ),
        (
            &"delivered".into(),
            &"Do you have tulips?".into(),
            &200.into()
        ),
        "{event}"
    );
    let received = &json("received.json")[0];
    assert_eq!(
        (&received["event_id"], &received["signature_ok"]),
        (&event["id"], &true.into()),
        "{received}"
    );
    let stream = read("stream.txt");
    assert!(
        stream.contains("event: event\n") && stream.contains("event: delivery\n"),
        "{stream}"
    );
    system.stop().await.unwrap();
}
