//! Receivers that break the rules, by accident or on purpose: each attempt ends in time, is on record with
//! its class, and costs nobody else anything.

mod table;

use std::time::Duration;

use futures_util::future::join_all;
use testkit::{Answer, RawReceiver, Receiver, Step, eventually};
use uuid::Uuid;

use crate::world::{Hook, SOON, World, start};
use table::Bad;

const TIMEOUT: Duration = Duration::from_secs(2);
/// What an attempt may take beyond its time, on a busy machine.
const SLACK: Duration = Duration::from_millis(1500);

/// A receiver at work, and the event that went to it.
struct Met {
    bad: Bad,
    receiver: RawReceiver,
    hook: Hook,
    id: Uuid,
}

async fn meet(world: &World, bad: Bad) -> Met {
    let receiver = RawReceiver::start(bad.steps.clone()).await;
    let hook = world.hook_at(&receiver.url(bad.scheme)).await;
    let id = world.send(&hook, 1).await[0];
    Met {
        bad,
        receiver,
        hook,
        id,
    }
}

/// Waits for the attempt, and compares what is on record.
async fn judge(world: &World, met: &Met) -> Result<(), String> {
    let name = met.bad.name;
    world.attempted(met.id, 1).await;
    let attempt = world.attempts(met.id).await.remove(0);
    let (class, took) = (attempt.error_class.as_deref(), attempt.duration_ms as u128);
    if (class, attempt.http_status) != (met.bad.class, met.bad.status) {
        return Err(format!("{name}: {attempt:?}"));
    }
    if took > (TIMEOUT + SLACK).as_millis() {
        return Err(format!("{name}: it took {took} ms"));
    }
    if class != Some("timeout") && took >= TIMEOUT.as_millis() {
        return Err(format!(
            "{name}: decided only when the time was over, after {took} ms"
        ));
    }
    let told = attempt
        .error
        .as_deref()
        .map_or(0, |error| error.lines().count());
    if told != usize::from(class.is_some()) {
        return Err(format!("{name}: not told in one line: {attempt:?}"));
    }
    let failures = world.webhook(&met.hook).await.failure_count;
    match failures == i32::from(class.is_some()) {
        true => Ok(()),
        false => Err(format!("{name}: {failures} failures are counted")),
    }
}

/// Everybody at once.
#[tokio::test]
async fn whatever_a_receiver_does_is_one_attempt_on_record_and_hurts_no_other() {
    let world = World::new().await;
    let healthy = world.hook("/fine").await;
    let mut config = world.config();
    config.sending.timeout = TIMEOUT;
    let running = start(config).await;

    let mut met = Vec::new();
    for bad in table::all() {
        met.push(meet(&world, bad).await);
    }
    let mut delays = Vec::new();
    for _ in 0..50 {
        let id = world.send(&healthy, 1).await[0];
        world.all(&[id], "delivered").await;
        let event = world.event(id).await;
        let request = world.receiver.received_at("/fine").pop().unwrap();
        delays.push((request.arrived - event.created_at).num_milliseconds());
    }
    delays.sort_unstable();
    assert!(delays[47] < 250, "{delays:?}");

    let judged = join_all(met.iter().map(|met| judge(&world, met))).await;
    let wrong: Vec<_> = judged.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for Met { bad, receiver, .. } in &met {
        // One that is not read from doesn't see that we have gone.
        if matches!(bad.steps.last(), Some(Step::Hold)) {
            continue;
        }
        let closed = async || match receiver.open() {
            0 => Ok(()),
            open => Err(format!("{}: {open} connections are open", bad.name)),
        };
        // A connection that may be used again is kept for a while.
        if bad.class.is_some() {
            eventually(SOON, closed).await;
        }
        let sent = receiver.sent();
        assert!(sent < 16 << 20, "{}: it could send {sent} bytes", bad.name);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_redirect_leads_nowhere_whatever_its_status() {
    let world = World::new().await;
    let elsewhere = Receiver::start().await;
    let running = world.impatient_dispatcher().await;
    for status in [300, 301, 302, 303, 304, 305, 307, 308, 399] {
        let path = format!("/moved/{status}");
        let answer = Answer::status(status).header("Location", &elsewhere.url("/there"));
        world.receiver.answer(&path, answer);
        let hook = world.hook(&path).await;
        let id = world.send(&hook, 1).await[0];
        world.attempted(id, 1).await;
        let attempt = world.attempts(id).await.remove(0);
        let found = (attempt.error_class.as_deref(), attempt.http_status);
        assert_eq!(
            found,
            (Some("redirect"), Some(status.into())),
            "{attempt:?}"
        );
    }
    assert!(elsewhere.received().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_gets_nothing_to_read() {
    let world = World::new().await;
    let answer = Step::send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let receiver = RawReceiver::start_self_signed([Step::Read, answer]).await;
    let hook = world.hook_at(&receiver.url("https")).await;
    let running = world.impatient_dispatcher().await;
    let id = world.send(&hook, 1).await[0];
    world.attempted(id, 1).await;
    let attempt = world.attempts(id).await.remove(0);
    assert_eq!(attempt.error_class.as_deref(), Some("tls"), "{attempt:?}");
    assert_eq!(receiver.requests(), 0);
    running.stop().await;
}

/// The real binary, as its memory is its own: each of these would fill it if it were let.
#[tokio::test]
async fn receivers_that_send_without_an_end_fill_no_memory() {
    let world = World::new().await;
    let warm = world.hook("/fine").await;
    let program = world.program().env("WEBHOOK_TIMEOUT", TIMEOUT.as_millis());
    let mut process = program.start().await;
    let ids = world.send(&warm, 200).await;
    world.all(&ids, "delivered").await;
    let before = peak_kib(&process);

    let mut met = Vec::new();
    for bad in table::endless() {
        met.push(meet(&world, bad).await);
    }
    for Met { hook, .. } in &met {
        world.send(hook, 15).await;
    }
    for met in &met {
        world.attempted(met.id, 1).await;
    }
    let grown = peak_kib(&process).saturating_sub(before);
    assert!(grown < 64 * 1024, "{before} KiB have grown by {grown}");
    process.kill().await;
}

/// The most memory that a process ever had.
fn peak_kib(process: &testkit::Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    peak.parse().unwrap()
}
