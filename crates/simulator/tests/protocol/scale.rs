//! What many accounts cost. Not part of the everyday run: it pairs thousands of clients.

use std::process::Child;

use crate::harness::{Control, Phone, eventually};
use crate::process::{free_address, start};

/// Resident memory of the process, in KiB.
fn resident(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

/// `ACCOUNTS=2000 cargo nextest run -p simulator thousands --run-ignored all --no-capture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and a gigabyte for the clients"]
async fn thousands_of_idle_accounts_take_little_memory() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test by hand has no configuration"
    )]
    let accounts = std::env::var("ACCOUNTS").map_or(2_000, |text| text.parse().unwrap());
    let address = free_address();
    let control = Control::at(&address);
    let mut child = start(&address, None).await;
    let mut phones = Vec::with_capacity(accounts);
    let mut first = 0;
    let start = std::time::Instant::now();
    for turn in 0..accounts {
        let phone = Phone::start(&address).await;
        phone.link(&control, None).await;
        phones.push(phone);
        // What the first ones cost is the process itself.
        if turn == accounts / 10 {
            first = resident(&child);
        }
    }
    let paired = start.elapsed();
    eventually("everyone online", || async {
        let all = control.get("/admin/accounts").await;
        let all = all.as_array().unwrap();
        let online = all.iter().filter(|account| account["online"] == true);
        (online.count() == accounts).then_some(())
    })
    .await;
    let counted = accounts - 1 - accounts / 10;
    let each = resident(&child).saturating_sub(first) / counted as u64;
    for phone in &mut phones {
        phone.stop().await;
    }
    eventually("everyone gone", || async {
        let all = control.get("/admin/accounts").await;
        let mut all = all.as_array().unwrap().iter();
        all.all(|account| account["online"] == false).then_some(())
    })
    .await;
    let away = resident(&child) / accounts as u64;
    println!("{accounts} accounts in {paired:.1?}, {each} KiB each, {away} KiB when away");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(each < 150, "{each} KiB for an idle account");
}
