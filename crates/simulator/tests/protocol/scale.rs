//! What many accounts cost.

use std::process::Child;

use crate::harness::{Control, Phone, eventually};
use crate::process::{free_address, start};

const ACCOUNTS: usize = 90;
/// What the first ones cost is the process itself.
const FIRST: usize = 30;
/// Two thousand take 110 KiB each; of a few, what an allocator keeps is a larger part.
const MOST: u64 = 250;

/// Resident memory of the process, in KiB.
fn resident(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_account_takes_little_memory() {
    let address = free_address();
    let control = Control::at(&address);
    let mut child = start(&address, None).await;
    let mut phones = Vec::with_capacity(ACCOUNTS);
    let mut first = 0;
    for turn in 0..ACCOUNTS {
        let phone = Phone::start(&address).await;
        phone.link(&control, None).await;
        phones.push(phone);
        if turn == FIRST {
            first = resident(&child);
        }
    }
    eventually("everyone online", || async {
        let all = control.get("/admin/accounts").await;
        let all = all.as_array().unwrap();
        let online = all.iter().filter(|account| account["online"] == true);
        (online.count() == ACCOUNTS).then_some(())
    })
    .await;
    let each = resident(&child).saturating_sub(first) / (ACCOUNTS - 1 - FIRST) as u64;
    for phone in &mut phones {
        phone.stop().await;
    }
    eventually("everyone gone", || async {
        let all = control.get("/admin/accounts").await;
        let mut all = all.as_array().unwrap().iter();
        all.all(|account| account["online"] == false).then_some(())
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(each < MOST, "{each} KiB for an idle account");
}
