use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use domain::claim::{Claimed, Park, Release, claim, claim_due, claim_probes, release};
use domain::event::Event;
use domain::parking::{Reason, park_followers, release_parked, set_aside};
use domain::record::{Outcome, record};
use domain::webhook::{Changes, Webhook};
use rand::RngExt;
use tokio::sync::Barrier;
use uuid::Uuid;

use crate::world::{self, World, accept, message, register};

fn park(claimed: &Claimed, token: Uuid) -> Release {
    Release {
        event_id: claimed.id,
        webhook_id: claimed.webhook_id,
        token,
        delay_seconds: 0.0,
        park: Some(Park {
            reason: Reason::Backlog,
            step: 16,
        }),
    }
}

fn active(is_active: bool) -> Changes {
    Changes {
        is_active: Some(is_active),
        ..Changes::default()
    }
}

const PENDING: &str =
    "SELECT count(*) AS count FROM whatsapp_webhook_events WHERE status = 'pending'";
const LETTERS: &str = "SELECT count(*) AS count FROM whatsapp_dead_letters";
/// Locks every parked event in the weakest way that a dispatcher does.
const SHARE_PARKED: &str =
    "BEGIN; SELECT FROM whatsapp_webhook_events WHERE next_retry_at IS NULL FOR SHARE";

#[tokio::test]
async fn what_a_lane_has_no_room_for_is_parked_and_comes_back_by_itself() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    // A new webhook is looked at once.
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 0);
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    let mut give_back = park(&claimed, token);
    give_back.delay_seconds = 30.0;
    assert_eq!(release(&mut conn, &[give_back]).await.unwrap(), 1);
    let event = world.event(claimed.id).await;
    assert_eq!(
        (event.parked.as_deref(), event.next_retry_at),
        (Some("backlog"), None)
    );
    assert_eq!(
        release_parked(&mut conn, 10).await.unwrap(),
        0,
        "not before its time"
    );
    world.look_now().await;
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 1);
    let back = claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
        .await
        .unwrap();
    assert_eq!((back[0].id, back[0].attempt_count), (claimed.id, 0));
}

#[tokio::test]
async fn a_release_that_finds_its_only_event_locked_comes_again() {
    let world = World::new().await;
    let (mut conn, mut locker) = (world.conn().await, world.conn().await);
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    release(&mut conn, &[park(&claimed, token)]).await.unwrap();
    locker.batch_execute(SHARE_PARKED).await.unwrap();
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 0);
    locker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(world.stranded().await, 0);
    world.look_now().await;
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 1);
}

#[tokio::test]
async fn a_probe_that_finds_its_only_event_locked_comes_again() {
    let world = World::new().await;
    let (mut conn, mut locker) = (world.conn().await, world.conn().await);
    world.open_circuit().await;
    world.accept(&["A"]).await;
    world.all_due().await;
    set_aside(&mut conn, 10).await.unwrap();
    world.look_now().await;
    locker.batch_execute(SHARE_PARKED).await.unwrap();
    let probes = claim_probes(&mut conn, 10, Uuid::new_v4(), 60.0)
        .await
        .unwrap();
    assert!(probes.is_empty());
    locker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(world.stranded().await, 0);
    world.look_now().await;
    let probes = claim_probes(&mut conn, 10, Uuid::new_v4(), 60.0)
        .await
        .unwrap();
    assert_eq!(probes.len(), 1);
}

#[tokio::test]
async fn an_event_that_is_being_parked_while_its_webhook_is_deleted_is_a_dead_letter() {
    let world = World::new().await;
    let [mut holder, mut deleter, mut parker, mut conn] = [
        world.conn().await,
        world.conn().await,
        world.conn().await,
        world.conn().await,
    ];
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    let (client, webhook) = (world.client.id, world.webhook.id);
    let hold = "BEGIN; SELECT FROM whatsapp_webhooks FOR NO KEY UPDATE";
    holder.batch_execute(hold).await.unwrap();
    let deleted = tokio::spawn(async move { Webhook::delete(&mut deleter, client, webhook).await });
    world.waiting(1).await;
    // It has locked the event and waits for the webhook, behind the deletion.
    let parked = tokio::spawn(async move { release(&mut parker, &[park(&claimed, token)]).await });
    world.waiting(2).await;
    holder.batch_execute("COMMIT").await.unwrap();
    assert!(deleted.await.unwrap().unwrap());
    parked.await.unwrap().unwrap();

    assert_eq!(world.stranded().await, 0);
    world.look_now().await;
    set_aside(&mut conn, 10).await.unwrap();
    assert_eq!(
        (world.count(PENDING).await, world.count(LETTERS).await),
        (0, 1)
    );
}

#[tokio::test]
async fn a_probe_that_fails_while_its_webhook_is_deleted_is_a_dead_letter() {
    let world = World::new().await;
    let [mut holder, mut deleter, mut recorder, mut conn] = [
        world.conn().await,
        world.conn().await,
        world.conn().await,
        world.conn().await,
    ];
    world.open_circuit().await;
    world.accept(&["A"]).await;
    world.all_due().await;
    set_aside(&mut conn, 10).await.unwrap();
    world.look_now().await;
    let token = Uuid::new_v4();
    let probe = claim_probes(&mut conn, 10, token, 60.0)
        .await
        .unwrap()
        .remove(0);
    let (client, webhook) = (world.client.id, world.webhook.id);
    let hold = "BEGIN; SELECT FROM whatsapp_webhooks FOR NO KEY UPDATE";
    holder.batch_execute(hold).await.unwrap();
    let deleted = tokio::spawn(async move { Webhook::delete(&mut deleter, client, webhook).await });
    world.waiting(1).await;
    let recorded = tokio::spawn(async move {
        let failed = world::record(&probe, token, Outcome::ProbeFailed);
        record(&mut recorder, &[failed]).await
    });
    world.waiting(2).await;
    holder.batch_execute("COMMIT").await.unwrap();
    assert!(deleted.await.unwrap().unwrap());
    recorded.await.unwrap().unwrap();

    assert_eq!(world.stranded().await, 0);
    world.look_now().await;
    set_aside(&mut conn, 10).await.unwrap();
    assert_eq!(
        (world.count(PENDING).await, world.count(LETTERS).await),
        (0, 6)
    );
}

#[tokio::test]
async fn a_deleted_webhook_with_very_many_events_is_buried_in_steps() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    world.seed_parked(2500, "backlog").await;
    world.accept(&["A"]).await;
    Webhook::delete(&mut conn, world.client.id, world.webhook.id)
        .await
        .unwrap();
    assert_eq!(world.count(LETTERS).await, 1001);
    for buried in [2001, 2501, 2501] {
        world.look_now().await;
        set_aside(&mut conn, 1000).await.unwrap();
        assert_eq!(world.count(LETTERS).await, buried);
        assert_eq!(world.stranded().await, 0);
    }
    assert_eq!(world.count(PENDING).await, 0);
    assert_eq!(world.circuit().await.look_in, None);
}

/// A foreign key's check would lock the webhook's row. One who waits for that row, while another has changed
/// it under such a lock, holds the old version; one who has the new version goes by the old one again.
#[tokio::test]
async fn a_dead_letter_is_written_without_a_lock_on_its_webhook() {
    let world = World::new().await;
    let (mut conn, mut locker) = (world.conn().await, world.conn().await);
    world.accept(&["A"]).await;
    let lock = "BEGIN; SELECT FROM whatsapp_webhooks FOR UPDATE";
    locker.batch_execute(lock).await.unwrap();
    let bury = r#"SET lock_timeout = '2s';
        INSERT INTO whatsapp_dead_letters (event_id, client_id, webhook_id, source_id, event_type, message_id,
            chat, "from", "to", message_type, content, metadata, "timestamp", attempt_count, reason)
        SELECT id, client_id, webhook_id, source_id, event_type, message_id,
            chat, "from", "to", message_type, content, metadata, "timestamp", 0, 'given up'
        FROM whatsapp_webhook_events"#;
    conn.batch_execute(bury).await.unwrap();
}

/// Parks and releases and activates at the same moment, in every order that chance brings.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_parks_while_others_release_or_activate_leaves_a_look_to_come() {
    const ROUNDS: usize = 150;
    let world = World::new().await;
    let (client, webhook) = (world.client.id, world.webhook.id);
    let [
        mut parker,
        mut releaser,
        mut activator,
        mut requeuer,
        mut conn,
    ] = [
        world.conn().await,
        world.conn().await,
        world.conn().await,
        world.conn().await,
        world.conn().await,
    ];
    let id = world.accept(&["A"]).await[0];
    for round in 0..ROUNDS {
        let token = Uuid::new_v4();
        world::set_due(&mut conn, id).await;
        let claimed = claim(&mut conn, &[id], token, 60.0)
            .await
            .unwrap()
            .remove(0);
        // Somebody's look is due at that moment, in every second round.
        if round % 2 == 0 {
            let look = "UPDATE whatsapp_webhooks SET look_at = now()";
            conn.batch_execute(look).await.unwrap();
        }
        let start = Barrier::new(4);
        let parks = async {
            start.wait().await;
            release(&mut parker, &[park(&claimed, token)])
                .await
                .unwrap();
        };
        let releases = async {
            start.wait().await;
            release_parked(&mut releaser, 10).await.unwrap();
        };
        let activates = async {
            start.wait().await;
            if round % 3 == 0 {
                Webhook::update(&mut activator, client, webhook, &active(true))
                    .await
                    .unwrap();
            }
        };
        let requeues = async {
            start.wait().await;
            if round % 5 == 0 {
                Event::requeue(&mut requeuer, client, id).await.unwrap();
            }
        };
        tokio::join!(parks, releases, activates, requeues);
        assert_eq!(world::stranded(&mut conn).await, 0, "in round {round}");
        let look = "UPDATE whatsapp_webhooks SET look_at = now() WHERE look_at IS NOT NULL";
        conn.batch_execute(look).await.unwrap();
        release_parked(&mut conn, 10).await.unwrap();
    }
}

/// Everything that locks events and webhooks, at once, on a few rows: they must neither deadlock nor leave
/// an event that nobody looks at.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_runs_at_once_never_deadlocks_and_strands_nothing() {
    const LASTS: Duration = Duration::from_secs(3);
    let world = World::new().await;
    let mut conn = world.conn().await;
    let ordered = "UPDATE whatsapp_webhooks SET ordered = true, max_in_flight = 4";
    conn.batch_execute(ordered).await.unwrap();
    let mut numbers = vec![world.connection.clone()];
    for number in ["4915100000001", "4915100000002"] {
        numbers.push(world::connect(&mut conn, world.client.id, number).await);
        register(&mut conn, world.client.id, number, &["*"]).await;
    }
    let storm = Arc::new(Storm {
        until: Instant::now() + LASTS,
        client: world.client.id,
        numbers,
    });
    let mut tasks = Vec::new();
    for kind in [
        Task::Accept,
        Task::Deliver,
        Task::Deliver,
        Task::Deliver,
        Task::LookAfter,
        Task::LookAfter,
        Task::Client,
        Task::TimePasses,
    ] {
        let (storm, conn) = (Arc::clone(&storm), world.conn().await);
        tasks.push(tokio::spawn(async move { storm.run(kind, conn).await }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(world.stranded().await, 0);
    let delivered =
        "SELECT count(*) AS count FROM whatsapp_webhook_events WHERE status = 'delivered'";
    assert!(world.count(delivered).await > 0);

    world.sql("UPDATE whatsapp_webhooks SET is_active = deleted_at IS NULL, status = 'active', ordered = false, look_at = now()").await;
    testkit::eventually(Duration::from_secs(30), async || {
        world.look_now().await;
        world.all_due().await;
        release_parked(&mut conn, 100).await.unwrap();
        let token = Uuid::new_v4();
        let claimed = claim_due(&mut conn, 500, token, 60.0).await.unwrap();
        let records: Vec<_> = claimed
            .iter()
            .map(|claimed| world::record(claimed, token, Outcome::Delivered))
            .collect();
        record(&mut conn, &records).await.unwrap();
        set_aside(&mut conn, 500).await.unwrap();
        park_followers(&mut conn, 500).await.unwrap();
        world.count(PENDING).await == 0
    })
    .await;
    let lettered = "SELECT count(*) AS count FROM whatsapp_webhook_events e
        FULL JOIN whatsapp_dead_letters l ON l.event_id = e.id
        WHERE (e.status = 'failed') IS DISTINCT FROM (l.event_id IS NOT NULL)";
    assert_eq!(world.count(lettered).await, 0);
}

#[derive(Clone, Copy)]
enum Task {
    /// The gateway.
    Accept,
    /// A dispatcher's claims and outcomes.
    Deliver,
    /// A dispatcher's poller.
    LookAfter,
    /// The API.
    Client,
    /// Waits end.
    TimePasses,
}

struct Storm {
    until: Instant,
    client: i32,
    numbers: Vec<domain::connection::Connection>,
}

impl Storm {
    async fn run(&self, task: Task, mut conn: AsyncPgConnection) {
        let mut n = 0;
        while Instant::now() < self.until {
            n += 1;
            match task {
                Task::Accept => self.accept(&mut conn, n).await,
                Task::Deliver => self.deliver(&mut conn).await,
                Task::LookAfter => {
                    set_aside(&mut conn, 50).await.unwrap();
                    park_followers(&mut conn, 50).await.unwrap();
                    release_parked(&mut conn, 10).await.unwrap();
                }
                Task::Client => self.call(&mut conn).await,
                Task::TimePasses => {
                    let pass = "UPDATE whatsapp_webhooks SET look_at = now() WHERE id IN (
                            SELECT id FROM whatsapp_webhooks WHERE look_at > now() FOR NO KEY UPDATE SKIP LOCKED);
                        UPDATE whatsapp_webhook_events SET next_retry_at = now() WHERE id IN (
                            SELECT id FROM whatsapp_webhook_events WHERE status = 'pending' AND next_retry_at > now()
                            LIMIT 20 FOR UPDATE SKIP LOCKED)";
                    conn.batch_execute(pass).await.unwrap();
                }
            }
        }
    }

    async fn accept(&self, conn: &mut AsyncPgConnection, n: usize) {
        let batch: Vec<_> = self
            .numbers
            .iter()
            .map(|connection| {
                let mut new = message(connection, &format!("{}-{n}", connection.phone_number));
                new.chat = format!("chat {}", n % 3);
                new
            })
            .collect();
        accept(conn, &batch).await;
    }

    async fn deliver(&self, conn: &mut AsyncPgConnection) {
        let token = Uuid::new_v4();
        let mut claimed = claim_due(conn, 20, token, 60.0).await.unwrap();
        claimed.extend(claim_probes(conn, 3, token, 60.0).await.unwrap());
        let (mut records, mut releases) = (Vec::new(), Vec::new());
        for event in &claimed {
            let chance = rand::rng().random_range(0..10);
            let outcome = match (chance, event.probe) {
                (0, _) => {
                    releases.push(park(event, token));
                    continue;
                }
                (1..=4, true) => Outcome::ProbeFailed,
                (1..=3, false) => Outcome::RetryIn(0.0),
                (4, false) => Outcome::Dead {
                    reason: "no more".to_owned(),
                    gone: false,
                },
                // Its dispatcher dies.
                (5, _) => continue,
                _ => Outcome::Delivered,
            };
            records.push(world::record(event, token, outcome));
        }
        record(conn, &records).await.unwrap();
        release(conn, &releases).await.unwrap();
    }

    async fn call(&self, conn: &mut AsyncPgConnection) {
        let chance: usize = rand::rng().random_range(0..20);
        let number = &self.numbers[chance % self.numbers.len()].phone_number;
        // What is there may be gone at the next step; that is an answer too.
        let registered = register(conn, self.client, number, &["*"]).await;
        match chance {
            0 => drop(
                Webhook::delete(conn, self.client, registered.id)
                    .await
                    .unwrap(),
            ),
            1..=4 => {
                let changes = Changes {
                    ordered: Some(chance.is_multiple_of(2)),
                    ..active(chance.is_multiple_of(3))
                };
                Webhook::update(conn, self.client, registered.id, &changes)
                    .await
                    .unwrap();
            }
            _ => {
                let events = world::newest(conn, &registered, 5, chance as i64).await;
                for event in events {
                    Event::requeue(conn, self.client, event.id).await.unwrap();
                }
            }
        }
    }
}
