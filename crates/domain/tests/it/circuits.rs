use std::collections::HashSet;

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use domain::claim::{Claimed, claim, claim_due, claim_probes};
use domain::client::Client;
use domain::event::{Event, Requeue};
use domain::event_type::EventType;
use domain::parking::{release_parked, set_aside};
use domain::record::{Outcome, Record, record};
use domain::schema::whatsapp_delivery_attempts as attempts;
use domain::webhook::{Changes, Webhook};
use domain::{attempt::Attempt, ids};
use uuid::Uuid;

use crate::world::{self, World, register};

const FAILED: Outcome = Outcome::ProbeFailed;

fn active(is_active: bool) -> Changes {
    Changes {
        is_active: Some(is_active),
        ..Changes::default()
    }
}

/// What was told to a webhook of the circuits of others.
async fn told(conn: &mut AsyncPgConnection, webhook: &Webhook) -> Vec<Event> {
    let mut events = world::newest(conn, webhook, 100, 0).await;
    events.retain(|event| event.event_type.starts_with("webhook."));
    events.reverse();
    events
}

fn types(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event.event_type.as_str())
        .collect()
}

/// An open circuit, these events parked behind it, and a look at them due.
async fn open_with(world: &World, message_ids: &[&str]) -> Vec<Uuid> {
    world.open_circuit().await;
    let ids = world.accept(message_ids).await;
    world.all_due().await;
    let aside = set_aside(&mut world.conn().await, 100).await.unwrap();
    assert_eq!(aside, ids.len());
    world.look_now().await;
    ids
}

async fn probe(world: &World, token: Uuid) -> Vec<Claimed> {
    claim_probes(&mut world.conn().await, 10, token, 60.0)
        .await
        .unwrap()
}

/// Sends the next probe, which ends so; the message that it took.
async fn probe_ends(world: &World, outcome: Outcome) -> String {
    probe_ends_with(world, outcome, 0.0).await
}

async fn probe_ends_with(world: &World, outcome: Outcome, leave_alone: f64) -> String {
    world.look_now().await;
    let token = Uuid::new_v4();
    let claimed = probe(world, token).await.pop().unwrap();
    let mut ended = world::record(&claimed, token, outcome);
    ended.leave_alone = leave_alone;
    record(&mut world.conn().await, &[ended]).await.unwrap();
    claimed.message_id
}

#[tokio::test]
async fn sixteen_in_flight_that_fail_together_open_the_circuit_once() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let other = register(&mut conn, world.client.id, "4915100000001", &["webhook.*"]).await;
    let token = Uuid::new_v4();
    let mut records: Vec<Record> = Vec::new();
    for n in 0..16 {
        let claimed = world.claimed(&format!("M{n}"), token).await;
        records.push(world::record(&claimed, token, Outcome::RetryIn(5.0)));
    }

    let recorders = records
        .chunks(3)
        .map(|batch| async { record(&mut world.conn().await, batch).await.unwrap().due });
    let due = futures_util::future::join_all(recorders).await.concat();

    let circuit = world.circuit().await;
    assert_eq!(
        (circuit.status.as_str(), circuit.failure_count),
        ("failed", 16)
    );
    assert_eq!(circuit.transition, 1);
    let events = told(&mut conn, &other).await;
    assert_eq!(types(&events), ["webhook.failing"]);
    assert_eq!(due, [events[0].id]);
}

#[tokio::test]
async fn the_first_probe_waits_as_long_as_the_failures_before_it_asked_for() {
    let world = World::new().await;
    let token = Uuid::new_v4();
    let mut records: Vec<Record> = Vec::new();
    for (name, leave_alone) in [
        ("A", 0.0),
        ("B", 120.0),
        ("C", 300.0),
        ("D", 60.0),
        ("E", 0.0),
    ] {
        let claimed = world.claimed(name, token).await;
        let mut failed = world::record(&claimed, token, Outcome::RetryIn(5.0));
        failed.leave_alone = leave_alone;
        records.push(failed);
    }
    record(&mut world.conn().await, &records).await.unwrap();
    let circuit = world.circuit().await;
    assert_eq!(circuit.status, "failed");
    let look_in = circuit.look_in.unwrap();
    assert!((295.0..=300.0).contains(&look_in), "{look_in}");
}

#[tokio::test]
async fn nothing_is_claimed_behind_an_open_circuit_and_what_is_due_is_parked() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    world.attempt(&["RETRIED"], Outcome::RetryIn(300.0)).await;
    world.open_circuit().await;
    let rung = world.accept(&["A"]).await;
    assert!(
        claim(&mut conn, &rung, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .is_empty()
    );
    world.all_due().await;
    assert!(
        claim(&mut conn, &rung, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .is_empty()
    );

    assert_eq!(set_aside(&mut conn, 10).await.unwrap(), 2);
    let event = world.event(rung[0]).await;
    assert_eq!(
        (event.parked.as_deref(), event.next_retry_at),
        (Some("circuit_open"), None)
    );
    assert_eq!(world.stranded().await, 0);
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 0);
}

#[tokio::test]
async fn the_first_probe_goes_out_about_five_seconds_after_the_circuit_opened_and_not_before() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    world.open_circuit().await;
    let first = world.circuit().await.look_in.unwrap();
    assert!((3.0..=5.5).contains(&first), "{first}");
    world.accept(&["A"]).await;
    world.all_due().await;
    set_aside(&mut conn, 10).await.unwrap();
    assert!(probe(&world, Uuid::new_v4()).await.is_empty());
    world.look_now().await;
    assert_eq!(probe(&world, Uuid::new_v4()).await.len(), 1);
}

#[tokio::test]
async fn all_dispatchers_together_have_one_probe_of_a_webhook_out() {
    let world = World::new().await;
    open_with(&world, &["A", "B", "C"]).await;
    let dispatchers = (0..6).map(|_| async { probe(&world, Uuid::new_v4()).await });
    let probes = futures_util::future::join_all(dispatchers).await.concat();
    assert_eq!(probes.len(), 1);
    assert!(probes[0].probe);
    assert_eq!(probes[0].message_id, "A");
    assert!(probe(&world, Uuid::new_v4()).await.is_empty());
}

#[tokio::test]
async fn probes_of_several_webhooks_go_out_together() {
    let world = World::new().await;
    open_with(&world, &["A", "B"]).await;
    let mut conn = world.conn().await;
    let second = register(&mut conn, world.client.id, "4915100000001", &["*"]).await;
    world
        .sql(&format!(
            "UPDATE whatsapp_webhooks SET status = 'failed', opened_at = now(), look_at = now() WHERE id = '{0}';
             UPDATE whatsapp_webhook_events SET webhook_id = '{0}' WHERE message_id = 'B'",
            second.id
        ))
        .await;
    let probes = probe(&world, Uuid::new_v4()).await;
    let webhooks: HashSet<Uuid> = probes.iter().map(|probe| probe.webhook_id).collect();
    assert_eq!(webhooks, HashSet::from([world.webhook.id, second.id]));
}

#[tokio::test]
async fn a_failed_probe_uses_up_no_attempt_and_is_in_the_ledger_as_a_probe() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let id = world.attempt(&["A"], Outcome::RetryIn(300.0)).await[0];
    world.open_circuit().await;
    world.all_due().await;
    set_aside(&mut conn, 10).await.unwrap();

    assert_eq!(probe_ends(&world, FAILED).await, "A");

    let event = world.event(id).await;
    assert_eq!((event.status.as_str(), event.attempt_count), ("pending", 1));
    assert_eq!(event.parked.as_deref(), Some("circuit_open"));
    let probes: Vec<bool> = attempts::table
        .filter(attempts::event_id.eq(id))
        .order(attempts::started_at)
        .select(attempts::probe)
        .load(&mut conn)
        .await
        .unwrap();
    assert_eq!(probes, [false, true]);
    assert_eq!(world.circuit().await.probes, 1);
}

#[tokio::test]
async fn pauses_between_probes_double_up_to_ten_minutes_and_are_longer_where_the_receiver_asks() {
    let world = World::new().await;
    open_with(&world, &["A", "B"]).await;
    for pause in [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0] {
        probe_ends(&world, FAILED).await;
        let look_in = world.circuit().await.look_in.unwrap();
        assert!(
            (pause * 0.9 - 5.0..=pause * 1.1).contains(&look_in),
            "{look_in} for {pause}"
        );
    }
    probe_ends_with(&world, FAILED, 5000.0).await;
    let look_in = world.circuit().await.look_in.unwrap();
    assert!((4990.0..=5000.0).contains(&look_in), "{look_in}");
    assert_eq!(world.stranded().await, 0);
}

#[tokio::test]
async fn probes_rotate_over_what_waits_and_begin_again_at_its_end() {
    let world = World::new().await;
    open_with(&world, &["A", "B", "C"]).await;
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.push(probe_ends(&world, FAILED).await);
    }
    assert_eq!(taken, ["A", "B", "C", "A", "B"]);
}

#[tokio::test]
async fn an_event_that_the_receiver_cannot_take_does_not_hold_its_circuit_open() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    open_with(&world, &["POISON", "GOOD"]).await;
    assert_eq!(probe_ends(&world, FAILED).await, "POISON");
    assert_eq!(probe_ends(&world, Outcome::Delivered).await, "GOOD");
    assert_eq!(world.circuit().await.status, "active");
    world.look_now().await;
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 1);
}

#[tokio::test]
async fn one_success_closes_the_circuit_and_what_waits_flows_in_growing_steps() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    world
        .sql("UPDATE whatsapp_webhooks SET max_in_flight = 4")
        .await;
    open_with(&world, &["A"]).await;
    world.seed_parked(39, "circuit_open").await;
    probe_ends(&world, Outcome::Delivered).await;
    let circuit = world.circuit().await;
    assert_eq!(
        (circuit.status.as_str(), circuit.failure_count),
        ("active", 0)
    );
    assert_eq!((circuit.probes, circuit.open_for), (0, None));

    let mut steps = Vec::new();
    for _ in 0..5 {
        steps.push(release_parked(&mut conn, 10).await.unwrap());
        assert_eq!(
            release_parked(&mut conn, 10).await.unwrap(),
            0,
            "not before its time"
        );
        world.look_now().await;
    }
    assert_eq!(steps, [4, 8, 16, 11, 0]);
    assert_eq!(world.circuit().await.look_in, None);
    assert_eq!(
        claim_due(&mut conn, 100, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .len(),
        39
    );
}

#[tokio::test]
async fn no_step_is_larger_than_a_rate_limit_lets_through_or_than_can_be_counted() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    world.seed_parked(2100, "rate_limit").await;
    let limited = "UPDATE whatsapp_webhooks SET rate_limit_per_second = 10, release_step = 16, look_at = now()";
    world.sql(limited).await;
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 3);
    // A step as large as the type has room for, from a webhook that takes as much at once.
    let huge = "UPDATE whatsapp_webhooks
                SET rate_limit_per_second = NULL, release_step = 2147483647, look_at = now()";
    world.sql(huge).await;
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 2000);
    assert_eq!(world.circuit().await.release_step, 2000);
}

#[tokio::test]
async fn a_probe_whose_dispatcher_died_comes_back_and_another_goes_out() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    open_with(&world, &["A", "B"]).await;
    let dead = probe(&world, Uuid::new_v4()).await.pop().unwrap();
    assert_eq!(dead.message_id, "A");
    world.all_due().await;
    assert!(
        claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(set_aside(&mut conn, 10).await.unwrap(), 1);
    assert_eq!(world.stranded().await, 0);
    assert_eq!(probe_ends(&world, FAILED).await, "B");
    assert_eq!(probe_ends(&world, FAILED).await, "A");
}

#[tokio::test]
async fn a_probe_that_is_recorded_after_its_claim_was_lost_strands_nothing() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    open_with(&world, &["A"]).await;
    let token = Uuid::new_v4();
    let late = probe(&world, token).await.pop().unwrap();
    world.all_due().await;
    set_aside(&mut conn, 10).await.unwrap();
    let recorded = record(&mut conn, &[world::record(&late, token, FAILED)])
        .await
        .unwrap();
    assert_eq!(recorded.superseded, 1);
    assert_eq!(
        world.event(late.id).await.parked.as_deref(),
        Some("circuit_open")
    );
    assert_eq!(world.stranded().await, 0);
}

#[tokio::test]
async fn a_probe_that_fails_after_the_webhook_was_set_active_by_hand_flows_with_the_rest() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    open_with(&world, &["A", "B"]).await;
    let token = Uuid::new_v4();
    let late = probe(&world, token).await.pop().unwrap();
    Webhook::update(&mut conn, world.client.id, world.webhook.id, &active(true))
        .await
        .unwrap();
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 1);
    record(&mut conn, &[world::record(&late, token, FAILED)])
        .await
        .unwrap();
    assert_eq!(world.stranded().await, 0);
    world.look_now().await;
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 1);
    assert_eq!(
        claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn a_webhook_that_fails_for_five_days_is_deactivated_and_its_events_are_held() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let other = register(&mut conn, world.client.id, "4915100000001", &["webhook.*"]).await;
    open_with(&world, &["A"]).await;
    probe_ends(&world, FAILED).await;
    assert!(world.circuit().await.is_active);
    world
        .sql("UPDATE whatsapp_webhooks SET opened_at = opened_at - interval '5 days', probes = 5")
        .await;
    probe_ends(&world, FAILED).await;

    assert!(!world.circuit().await.is_active);
    assert_eq!(
        types(&told(&mut conn, &other).await),
        ["webhook.failing", "webhook.deactivated"]
    );
    world.look_now().await;
    assert!(probe(&world, Uuid::new_v4()).await.is_empty());
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 0);

    Webhook::update(&mut conn, world.client.id, world.webhook.id, &active(true))
        .await
        .unwrap();
    let circuit = world.circuit().await;
    assert_eq!(
        (circuit.status.as_str(), circuit.failure_count),
        ("active", 0)
    );
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 1);
}

#[tokio::test]
async fn a_webhook_that_took_something_meanwhile_has_not_failed_for_five_days() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let token = Uuid::new_v4();
    let mut in_flight = Vec::new();
    for name in ["OK", "N1", "N2", "N3", "N4", "N5"] {
        in_flight.push(world.claimed(name, token).await);
    }
    world.open_circuit().await;
    world
        .sql("UPDATE whatsapp_webhooks SET opened_at = opened_at - interval '5 days', probes = 5")
        .await;
    // One gets through, and five fail before that is written.
    let batch: Vec<Record> = in_flight
        .iter()
        .map(|claimed| {
            let outcome = match claimed.message_id.as_str() {
                "OK" => Outcome::Delivered,
                _ => Outcome::RetryIn(300.0),
            };
            world::record(claimed, token, outcome)
        })
        .collect();
    record(&mut conn, &batch).await.unwrap();
    let circuit = world.circuit().await;
    assert_eq!(circuit.status, "failed");
    assert!(circuit.open_for.unwrap() < 60.0, "{circuit:?}");
    world.accept(&["A"]).await;
    world.all_due().await;
    set_aside(&mut conn, 100).await.unwrap();
    probe_ends(&world, FAILED).await;
    assert!(world.circuit().await.is_active);
}

#[tokio::test]
async fn a_receiver_that_is_gone_has_its_events_held_until_it_is_active_again() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let other = register(&mut conn, world.client.id, "4915100000001", &["*"]).await;
    let gone = Outcome::Dead {
        reason: "answered 410".to_owned(),
        gone: true,
    };
    let waiting = world.accept(&["A"]).await[0];
    world.attempt(&["GONE"], gone).await;
    assert!(!world.circuit().await.is_active);
    assert_eq!(
        types(&told(&mut conn, &other).await),
        ["webhook.deactivated"]
    );
    world.all_due().await;
    assert!(
        claim_due(&mut conn, 10, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .iter()
            .all(|e| e.webhook_id == other.id)
    );
    assert_eq!(set_aside(&mut conn, 10).await.unwrap(), 1);
    assert_eq!(
        world.event(waiting).await.parked.as_deref(),
        Some("inactive")
    );
    Webhook::update(&mut conn, world.client.id, world.webhook.id, &active(true))
        .await
        .unwrap();
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 1);
}

#[tokio::test]
async fn the_clients_other_webhooks_are_told_of_each_change_once_and_nobody_else_is() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let client = world.client.id;
    world
        .sql("UPDATE whatsapp_webhooks SET event_types = '{*}'")
        .await;
    let family = register(&mut conn, client, "4915100000001", &["webhook.*"]).await;
    let recovered = register(&mut conn, client, "4915100000002", &["webhook.recovered"]).await;
    let messages = register(&mut conn, client, "4915100000003", &["message.*"]).await;
    let inactive = register(&mut conn, client, "4915100000004", &["*"]).await;
    let deleted = register(&mut conn, client, "4915100000005", &["*"]).await;
    let stranger = Client::insert(&mut conn, "stranger").await.unwrap().id;
    let strangers = register(&mut conn, stranger, world::NUMBER, &["*"]).await;
    Webhook::update(&mut conn, client, inactive.id, &active(false))
        .await
        .unwrap();
    Webhook::delete(&mut conn, client, deleted.id)
        .await
        .unwrap();

    let token = Uuid::new_v4();
    let mut batch = Vec::new();
    for n in 0..5 {
        let claimed = world.claimed(&format!("M{n}"), token).await;
        batch.push(world::record(&claimed, token, Outcome::RetryIn(5.0)));
    }
    let good = world.claimed("GOOD", token).await;
    let good = [world::record(&good, token, Outcome::Delivered)];
    for _ in 0..2 {
        record(&mut conn, &batch).await.unwrap();
    }
    for _ in 0..2 {
        record(&mut conn, &good).await.unwrap();
    }

    let events = told(&mut conn, &family).await;
    assert_eq!(types(&events), ["webhook.failing", "webhook.recovered"]);
    for (number, event, kind) in [
        (1, &events[0], EventType::WebhookFailing),
        (2, &events[1], EventType::WebhookRecovered),
    ] {
        let source = ids::transition(world.webhook.id, number, event.timestamp);
        assert_eq!(event.id, ids::event(kind, source, family.id));
        assert_eq!(event.metadata["webhook_id"], world.webhook.id.to_string());
        assert_eq!(event.to, world.webhook.phone_number);
    }
    assert_eq!(
        types(&told(&mut conn, &recovered).await),
        ["webhook.recovered"]
    );
    for deaf in [&world.webhook, &messages, &inactive, &deleted, &strangers] {
        assert!(
            told(&mut conn, deaf).await.is_empty(),
            "{}",
            deaf.phone_number
        );
    }
}

#[tokio::test]
async fn a_requeued_event_is_the_next_probe_and_goes_out_at_once() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let ids = open_with(&world, &["A", "B", "C"]).await;
    probe_ends(&world, FAILED).await;
    let requeued = Event::requeue(&mut conn, world.client.id, ids[2])
        .await
        .unwrap();
    assert_eq!(requeued, Requeue::Requeued);
    assert_eq!(probe(&world, Uuid::new_v4()).await[0].message_id, "C");
    let ledger = Attempt::list(&mut conn, world.client.id, ids[2])
        .await
        .unwrap();
    assert!(ledger.is_empty());
}
