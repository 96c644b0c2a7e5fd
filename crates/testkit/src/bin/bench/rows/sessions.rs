//! What many sessions cost a gateway: memory while they are idle, the time until all are back after a restart,
//! and how much it can receive.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use testkit::eventually;
use testkit::system::phones::{Letter, Written};
use testkit::system::{Settings, System};
use tokio::time::{Instant, sleep};

use super::Extent;
use crate::machine::Usage;
use crate::percentile::percentile;
use crate::report::Row;

/// What this measures.
pub(super) const ROWS: [&str; 3] = [KIB, RESTORE, INBOUND];
const KIB: &str = "gateway_kib_per_session";
const RESTORE: &str = "gateway_restore_1000_s";
const INBOUND: &str = "gateway_inbound_per_s";

const SESSIONS: usize = 1_000;
/// Of them so many receive, each so many messages at once.
const RECEIVERS: usize = 500;
const EACH: usize = 60;
/// After the last was linked, so that what that took is given back.
const IDLE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);
const CONTACTS: usize = 5;

/// Measures so many rounds on one system: without webhooks, and with nobody to deliver.
pub(super) async fn measure(extent: &Extent) -> anyhow::Result<Vec<Row>> {
    let system = System::start(Settings {
        dispatchers: 0,
        ..Settings::default()
    });
    let mut system = system.await?;
    // What the first one loads is not what each one costs.
    system.link_many(0..1).await?;
    let before = resident(&system)?;
    let phones = system.link_many(1..SESSIONS).await?;
    sleep(IDLE).await;
    let idle = resident(&system)?;
    let each = (idle - before) / (SESSIONS - 1) as f64;
    println!(
        "{SESSIONS} idle sessions: {before:.0} KiB with one, {idle:.0} KiB with all, {each:.0} KiB each"
    );
    let (mut restored, mut received, mut after, mut notes) = (vec![], vec![], vec![], vec![]);
    for round in 1..=extent.rounds {
        let inbound = receive(&system, &phones[..RECEIVERS]).await?;
        println!(
            "round {round}: {:.0} messages/s; {}",
            inbound.per_second, inbound.note
        );
        received.push(inbound.per_second);
        notes.push(inbound.note);
        let (seconds, busy) = restore(&mut system).await?;
        println!(
            "round {round}: {SESSIONS} sessions back after {seconds:.2} s; processors busy: {busy}"
        );
        restored.push(seconds);
        sleep(IDLE).await;
        after.push(resident(&system)? / SESSIONS as f64);
    }
    let whole: Vec<_> = after.iter().map(|kib| format!("{kib:.0}")).collect();
    let note = format!(
        "the whole process over its sessions, after each restart: {} KiB",
        whole.join(", ")
    );
    system.stop().await?;
    Ok(vec![
        Row::of(KIB, "KiB", vec![each]).with_note(note),
        Row::of(RESTORE, "s", restored),
        Row::of(INBOUND, "/s", received).with_note(notes.pop().unwrap_or_default()),
    ])
}

struct Inbound {
    per_second: f64,
    note: String,
}

/// From the first message to the last acknowledgement, by the simulator's clock.
async fn receive(system: &System, phones: &[String]) -> anyhow::Result<Inbound> {
    let contacts: Vec<_> = (0..CONTACTS).map(|n| format!("4930{n:07}")).collect();
    let known = system.phones.ledger().await?.len();
    let before = Usage::now(&system.processes());
    let calls = phones.iter().map(|phone| {
        let letter = Letter {
            to: phone,
            from: &contacts,
            text: "Bom dia! Vocês abrem hoje? Queria encomendar um bolo para sábado.",
            group: None,
            name: None,
            count: EACH,
            rate: None,
        };
        async move { system.phones.write(&letter).await }
    });
    let sent = try_join_all(calls).await?.concat().len();
    let written = eventually(PATIENCE, async || {
        let ledger = system
            .phones
            .ledger()
            .await
            .map_err(|error| format!("{error:#}"))?;
        let new: Vec<Written> = ledger.into_iter().skip(known).collect();
        let acked = new
            .iter()
            .filter(|message| message.acked_at.is_some())
            .count();
        match acked >= sent {
            true => Ok(new),
            false => {
                // The look itself costs the simulator something.
                sleep(LOOK).await;
                Err(format!("{acked} of {sent} messages are acknowledged"))
            }
        }
    })
    .await;
    let busy = before.until(&Usage::now(&system.processes()));
    let first = written.iter().map(|message| message.sent_at).min();
    let last = written.iter().filter_map(|message| message.acked_at).max();
    let (first, last) = first.zip(last).context("no message was sent")?;
    let mut waits: Vec<f64> = written
        .iter()
        .filter_map(|message| Some((message.acked_at? - message.sent_at).num_milliseconds() as f64))
        .collect();
    waits.sort_by(f64::total_cmp);
    ensure!(last > first, "{sent} messages took no time");
    let seconds = (last - first).num_milliseconds() as f64 / 1000.0;
    Ok(Inbound {
        per_second: sent as f64 / seconds,
        note: format!(
            "{sent} messages in {seconds:.1} s, from send to ack p50 {:.0} ms, p99 {:.0} ms; processors busy: {busy}",
            percentile(&waits, 0.5),
            percentile(&waits, 0.99)
        ),
    })
}

/// A gateway ends in good order and another starts: how long until all sessions are connected.
async fn restore(system: &mut System) -> anyhow::Result<(f64, crate::machine::Busy)> {
    let status = system.gateways[0].stop().await;
    ensure!(status.success(), "the gateway ended with {status}");
    let before = Usage::now(&system.processes());
    let started = Instant::now();
    system.gateways[0].start_again().await;
    let phones = &system.phones;
    eventually(PATIENCE, async || match phones.online().await {
        Ok(online) if online >= SESSIONS => Ok(()),
        Ok(online) => {
            sleep(LOOK).await;
            Err(format!("{online} of {SESSIONS} sessions are back"))
        }
        Err(error) => Err(format!("{error:#}")),
    })
    .await;
    let seconds = started.elapsed().as_secs_f64();
    Ok((seconds, before.until(&Usage::now(&system.processes()))))
}

/// The gateway's memory, in KiB.
fn resident(system: &System) -> anyhow::Result<f64> {
    let pid = system.gateways[0].pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib = kib.context("the gateway's memory cannot be read")?;
    Ok(kib.trim().parse()?)
}
