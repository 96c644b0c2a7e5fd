//! A message as big as they come, and very many at once.

use std::collections::{HashMap, HashSet};

use serde_json::json;
use testkit::{Process, eventually};

use super::scene::{LONG, Scene};
use crate::rig::{ANA, NUMBER, Rig};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_text_of_four_megabytes_is_committed_whole() {
    let scene = Scene::set().await;
    let text = "0123456789abcdef".repeat(4 * MIB as usize / 16);
    let message = json!({"to": NUMBER, "from": ANA, "text": text});
    let ids = scene.rig.send(message).await;
    let rows = scene.rig.wait_for_rows(1).await;
    assert_eq!(rows[0].message_id, ids[0]);
    assert!(rows[0].content == text, "{} bytes", rows[0].content.len());
    scene.rig.wait_for_acks(NUMBER).await;
    scene.is_back().await;
    scene.end().await;
}

/// The most that the process has ever had resident, in bytes.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_waiting_messages_are_committed_once_and_in_order_within_little_memory() {
    const MESSAGES: usize = 10_000;
    let contacts: Vec<String> = (0..10)
        .map(|turn| format!("55119111100{turn:02}"))
        .collect();
    let rig = Rig::start().await;
    let mut gateway = rig.program().start().await;
    rig.link(NUMBER).await;
    let webhook = rig.webhook(&["message"]).await;
    gateway.stop().await;
    let mut sent = Vec::new();
    while sent.len() < MESSAGES {
        let some = json!({"to": NUMBER, "from": contacts, "text": "while away", "count": 1000});
        sent.extend(rig.send(some).await);
    }

    gateway.start_again().await;
    let before = peak(&gateway);
    eventually(LONG * 2, async || {
        let rows = rig.count("whatsapp_messages").await;
        match usize::try_from(rows).unwrap() >= MESSAGES {
            true => Ok(()),
            false => Err(format!("{rows} rows")),
        }
    })
    .await;
    rig.wait_for_acks(NUMBER).await;
    let grown = (peak(&gateway) - before) / MIB;
    assert!(grown < 128, "{grown} MiB more");
    let events = rig.events(&webhook).await;
    let place: HashMap<_, _> = sent.iter().zip(0_usize..).collect();
    let places: Vec<_> = events
        .iter()
        .map(|event| place[&event.message_id])
        .collect();
    assert_eq!(places.len(), MESSAGES);
    assert_eq!(places.iter().collect::<HashSet<_>>().len(), MESSAGES);
    for turn in 0..contacts.len() {
        // Contacts take turns.
        let chat = places
            .iter()
            .filter(|place| *place % contacts.len() == turn);
        assert!(chat.is_sorted(), "the order of a chat is kept");
    }
}
