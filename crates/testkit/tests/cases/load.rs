//! The load tool, on a whole system instead of the part of one that the simulator's own tests give it.

use serde_json::Value;
use testkit::Program;
use testkit::system::records::Session;
use testkit::system::{Settings, System};

use super::alone;

#[tokio::test]
async fn a_load_links_numbers_writes_to_them_and_finds_that_all_arrived() {
    let _alone = alone().await;
    let system = System::start(Settings::default()).await.unwrap();
    let load = Program::new("recado-simulator")
        .arg("load")
        .arg("--json")
        .env("API_URL", system.users.url())
        .env("API_TOKEN", system.token())
        .env("SIMULATOR_URL", system.phones.url());
    let options = [
        ("--accounts", "4"),
        ("--contacts", "3"),
        ("--rate", "40"),
        ("--duration", "3s"),
    ];
    let load = options
        .into_iter()
        .fold(load, |load, (option, value)| load.arg(option).arg(value));
    let output = load.run().await;
    assert!(output.status.success(), "{}", output.stderr);

    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let number = |field: &str| report[field].as_u64().unwrap();
    assert_eq!((number("numbers"), number("sent")), (4, 120), "{report}");
    assert_eq!((number("acked"), number("received")), (120, 120));
    assert_eq!((number("unacked"), number("undelivered")), (0, 0));
    assert_eq!(number("duplicates"), 0);
    let milliseconds = |what: &str| report[what]["p50"].as_i64().unwrap();
    let (acked, received) = (
        milliseconds("send_to_ack_ms"),
        milliseconds("send_to_receiver_ms"),
    );
    assert!(
        0 < acked && acked < 5_000 && 0 < received && received < 5_000,
        "{report}"
    );
    let known = system.records().await.unwrap().messages().await.unwrap();
    let known = known.iter().filter(|known| known.event_type == "message");
    assert_eq!(known.count(), 120);
    assert_eq!(system.verify().await.unwrap(), Vec::<String>::new());
    // What it made for the run is taken away again.
    let sessions = system.records().await.unwrap().sessions().await.unwrap();
    let is_over = |session: &Session| session.status == "logged_out";
    assert!(sessions.iter().all(is_over), "{sessions:?}");
    system.stop().await.unwrap();
}
