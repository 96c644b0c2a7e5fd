use std::collections::HashMap;

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use domain::claim::{Claimed, claim, claim_due, claim_probes};
use domain::event::Event;
use domain::message::NewMessage;
use domain::parking::{park_followers, set_aside};
use domain::record::{Outcome, Recorded, record};
use domain::webhook::{Changes, Webhook};
use uuid::Uuid;

use crate::world::{self, World, accept};

const ORDER: &str = "UPDATE whatsapp_webhooks SET ordered = true";

async fn ordered_world() -> World {
    let world = World::new().await;
    world.sql(ORDER).await;
    world
}

fn dead() -> Outcome {
    Outcome::Dead {
        reason: "the last attempt failed".to_owned(),
        gone: false,
    }
}

fn message(world: &World, chat: &str, id: &str) -> NewMessage {
    NewMessage {
        chat: chat.to_owned(),
        ..world.message(id)
    }
}

async fn commit(world: &World, messages: &[(&str, &str)]) -> Vec<Uuid> {
    let batch: Vec<NewMessage> = messages
        .iter()
        .map(|(chat, id)| message(world, chat, id))
        .collect();
    accept(&mut world.conn().await, &batch).await.events
}

/// Claims those that were rung; the messages that may go, by name.
async fn ring(world: &World, ids: &[Uuid], token: Uuid) -> HashMap<String, Claimed> {
    let claimed = claim(&mut world.conn().await, ids, token, 60.0)
        .await
        .unwrap();
    claimed
        .into_iter()
        .map(|claimed| (claimed.message_id.clone(), claimed))
        .collect()
}

async fn due(world: &World) -> Vec<String> {
    let claimed = claim_due(&mut world.conn().await, 100, Uuid::new_v4(), 60.0)
        .await
        .unwrap();
    let mut names: Vec<String> = claimed
        .into_iter()
        .map(|claimed| claimed.message_id)
        .collect();
    names.sort();
    names
}

async fn ends(world: &World, claimed: &Claimed, token: Uuid, outcome: Outcome) -> Recorded {
    let attempt = world::record(claimed, token, outcome);
    record(&mut world.conn().await, &[attempt]).await.unwrap()
}

async fn follow(world: &World) -> usize {
    park_followers(&mut world.conn().await, 100).await.unwrap()
}

#[tokio::test]
async fn only_the_first_of_a_chat_is_claimed_and_other_chats_go_on() {
    let world = ordered_world().await;
    let ids = commit(
        &world,
        &[
            ("a", "A1"),
            ("a", "A2"),
            ("b", "B1"),
            ("a", "A3"),
            ("b", "B2"),
        ],
    )
    .await;
    let token = Uuid::new_v4();
    let first = ring(&world, &ids, token).await;
    let mut names: Vec<&String> = first.keys().collect();
    names.sort();
    assert_eq!(names, ["A1", "B1"]);
    assert!(ring(&world, &ids, Uuid::new_v4()).await.is_empty());
    // B1 is tried again in five minutes; A goes on.
    ends(&world, &first["B1"], token, Outcome::RetryIn(300.0)).await;
    let recorded = ends(&world, &first["A1"], token, Outcome::Delivered).await;
    assert_eq!(recorded.due, [ids[1]]);
    let second = ring(&world, &ids, Uuid::new_v4()).await;
    assert_eq!(second.keys().collect::<Vec<_>>(), ["A2"]);
}

#[tokio::test]
async fn what_waits_for_its_turn_costs_the_poller_nothing_and_is_called() {
    let world = ordered_world().await;
    let ids = commit(&world, &[("a", "A1"), ("a", "A2"), ("a", "A3")]).await;
    let token = Uuid::new_v4();
    let head = ring(&world, &ids[..1], token).await.remove("A1").unwrap();
    world.make_due(ids[1]).await;
    world.make_due(ids[2]).await;
    assert!(due(&world).await.is_empty());
    assert_eq!(follow(&world).await, 2);
    assert_eq!(follow(&world).await, 0);
    let waiting = world.event(ids[1]).await;
    assert_eq!(waiting.parked.as_deref(), Some("order"));
    assert!(waiting.next_retry_at.unwrap() > chrono::Utc::now());

    assert_eq!(ends(&world, &head, token, dead()).await.due, [ids[1]]);
    assert_eq!(due(&world).await, ["A2"]);
    assert_eq!(world.event(ids[2]).await.parked.as_deref(), Some("order"));
}

#[tokio::test]
async fn a_head_in_backoff_holds_its_own_chat_and_is_not_hurried() {
    let world = ordered_world().await;
    let ids = commit(&world, &[("a", "A1"), ("a", "A2"), ("b", "B1")]).await;
    let token = Uuid::new_v4();
    let first = ring(&world, &ids, token).await;
    let recorded = ends(&world, &first["A1"], token, Outcome::RetryIn(300.0)).await;
    assert!(recorded.due.is_empty());
    world.make_due(ids[1]).await;
    assert!(due(&world).await.is_empty());
    assert_eq!(follow(&world).await, 1);
    ends(&world, &first["B1"], token, Outcome::Delivered).await;
    assert!(due(&world).await.is_empty());
    world.make_due(ids[0]).await;
    assert_eq!(due(&world).await, ["A1"]);
}

#[tokio::test]
async fn an_event_committed_while_the_head_is_in_flight_goes_right_after_it() {
    let world = ordered_world().await;
    let head = commit(&world, &[("a", "A1")]).await;
    let token = Uuid::new_v4();
    let head = ring(&world, &head, token).await.remove("A1").unwrap();
    let next = commit(&world, &[("a", "A2")]).await;
    assert!(ring(&world, &next, Uuid::new_v4()).await.is_empty());
    assert_eq!(
        ends(&world, &head, token, Outcome::Delivered).await.due,
        next
    );
    assert_eq!(due(&world).await, ["A2"]);
}

#[tokio::test]
async fn whoever_parks_followers_while_the_head_is_recorded_leaves_the_next_one_called() {
    let world = ordered_world().await;
    let [mut holder, mut recorder] = [world.conn().await, world.conn().await];
    let ids = commit(&world, &[("a", "A1"), ("a", "A2")]).await;
    let token = Uuid::new_v4();
    let head = ring(&world, &ids[..1], token).await.remove("A1").unwrap();
    world.make_due(ids[1]).await;
    // The recorder has locked the head and waits for the webhook.
    let hold = "BEGIN; SELECT FROM whatsapp_webhooks FOR NO KEY UPDATE";
    holder.batch_execute(hold).await.unwrap();
    let recorded = tokio::spawn(async move {
        let delivered = world::record(&head, token, Outcome::Delivered);
        record(&mut recorder, &[delivered]).await
    });
    world.waiting(1).await;
    assert_eq!(
        follow(&world).await,
        0,
        "nothing waits for a head that may be through"
    );
    holder.batch_execute("COMMIT").await.unwrap();
    recorded.await.unwrap().unwrap();
    assert_eq!(due(&world).await, ["A2"]);
}

#[tokio::test]
async fn a_head_that_is_recorded_while_followers_are_parked_calls_the_next_one() {
    let world = ordered_world().await;
    let [mut parker, mut recorder] = [world.conn().await, world.conn().await];
    let ids = commit(&world, &[("a", "A1"), ("a", "A2")]).await;
    let token = Uuid::new_v4();
    let head = ring(&world, &ids[..1], token).await.remove("A1").unwrap();
    world.make_due(ids[1]).await;
    parker.batch_execute("BEGIN").await.unwrap();
    assert_eq!(park_followers(&mut parker, 100).await.unwrap(), 1);
    let recorded = tokio::spawn(async move {
        let delivered = world::record(&head, token, Outcome::Delivered);
        record(&mut recorder, &[delivered]).await
    });
    world.waiting(1).await;
    parker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(recorded.await.unwrap().unwrap().due, [ids[1]]);
    assert_eq!(due(&world).await, ["A2"]);
}

#[tokio::test]
async fn a_chat_with_two_in_flight_goes_on_when_both_are_recorded_at_one_moment() {
    let world = ordered_world().await;
    let [mut holder, mut one, mut two] =
        [world.conn().await, world.conn().await, world.conn().await];
    let ids = commit(&world, &[("a", "A1"), ("a", "A2"), ("a", "A3")]).await;
    let token = Uuid::new_v4();
    let head = ring(&world, &ids[..1], token).await.remove("A1").unwrap();
    ends(&world, &head, token, Outcome::Delivered).await;
    let second = ring(&world, &ids[1..2], token).await.remove("A2").unwrap();
    // A1 is wanted again while A2 is on its way.
    Event::requeue(&mut holder, world.client.id, ids[0])
        .await
        .unwrap();
    let first = ring(&world, &ids[..1], token).await.remove("A1").unwrap();
    world.make_due(ids[2]).await;
    assert_eq!(follow(&world).await, 1);

    // Both have looked for what comes next before either has committed. A success that is not the first of
    // a second would not wait for the webhook.
    world
        .sql("UPDATE whatsapp_webhooks SET last_success_at = NULL")
        .await;
    let hold = "BEGIN; SELECT FROM whatsapp_webhooks FOR NO KEY UPDATE";
    holder.batch_execute(hold).await.unwrap();
    let recorders = [(first, &mut one), (second, &mut two)];
    let ended = futures_util::future::join_all(recorders.map(|(claimed, conn)| async move {
        record(conn, &[world::record(&claimed, token, Outcome::Delivered)])
            .await
            .unwrap();
    }));
    let released = async {
        world.waiting(2).await;
        holder.batch_execute("COMMIT").await.unwrap();
    };
    tokio::join!(ended, released);
    assert_eq!(due(&world).await, ["A3"]);
}

#[tokio::test]
async fn a_webhook_that_wants_no_order_any_more_gets_all_that_waited_for_its_turn() {
    let world = ordered_world().await;
    let ids = commit(&world, &[("a", "A1"), ("a", "A2"), ("a", "A3")]).await;
    let token = Uuid::new_v4();
    let head = ring(&world, &ids[..1], token).await.remove("A1").unwrap();
    ends(&world, &head, token, Outcome::RetryIn(300.0)).await;
    world.make_due(ids[1]).await;
    world.make_due(ids[2]).await;
    assert_eq!(follow(&world).await, 2);
    let unordered = Changes {
        ordered: Some(false),
        ..Changes::default()
    };
    let mut conn = world.conn().await;
    Webhook::update(&mut conn, world.client.id, world.webhook.id, &unordered)
        .await
        .unwrap();
    assert_eq!(due(&world).await, ["A2", "A3"]);
}

#[tokio::test]
async fn a_requeued_earlier_event_goes_before_those_that_have_not_begun() {
    let world = ordered_world().await;
    let ids = commit(&world, &[("a", "A1"), ("a", "A2")]).await;
    let token = Uuid::new_v4();
    let head = ring(&world, &ids[..1], token).await.remove("A1").unwrap();
    ends(&world, &head, token, dead()).await;
    Event::requeue(&mut world.conn().await, world.client.id, ids[0])
        .await
        .unwrap();
    let again = ring(&world, &ids, token).await;
    assert_eq!(again.keys().collect::<Vec<_>>(), ["A1"]);
    assert_eq!(
        ends(&world, &again["A1"], token, Outcome::Delivered)
            .await
            .due,
        [ids[1]]
    );
}

#[tokio::test]
async fn probes_keep_to_the_order_of_a_chat() {
    let world = ordered_world().await;
    let mut conn = world.conn().await;
    commit(
        &world,
        &[("a", "A1"), ("a", "A2"), ("b", "B1"), ("b", "B2")],
    )
    .await;
    world.open_circuit().await;
    world.all_due().await;
    assert_eq!(set_aside(&mut conn, 100).await.unwrap(), 4);
    let mut taken = Vec::new();
    for _ in 0..3 {
        world.look_now().await;
        let token = Uuid::new_v4();
        let probe = claim_probes(&mut conn, 10, token, 60.0)
            .await
            .unwrap()
            .remove(0);
        ends(&world, &probe, token, Outcome::ProbeFailed).await;
        taken.push(probe.message_id);
    }
    assert_eq!(taken, ["A1", "B1", "A1"]);
}

#[tokio::test]
async fn an_event_behind_an_open_circuit_whose_head_fails_for_good_is_probed() {
    let world = ordered_world().await;
    let mut conn = world.conn().await;
    let ids = commit(&world, &[("a", "A1"), ("a", "A2")]).await;
    let token = Uuid::new_v4();
    let head = ring(&world, &ids[..1], token).await.remove("A1").unwrap();
    world.open_circuit().await;
    world.make_due(ids[1]).await;
    assert_eq!(set_aside(&mut conn, 100).await.unwrap(), 1);
    world.look_now().await;
    // The only one that is parked is not to go before A1, which is still under way.
    let probes = claim_probes(&mut conn, 10, Uuid::new_v4(), 60.0)
        .await
        .unwrap();
    assert!(probes.is_empty());
    assert_eq!(world.stranded().await, 0);

    ends(&world, &head, token, dead()).await;
    world.look_now().await;
    let probes = claim_probes(&mut conn, 10, Uuid::new_v4(), 60.0)
        .await
        .unwrap();
    assert_eq!(probes[0].message_id, "A2");
}

/// A chat of very many, of which only the first may go, and it always fails.
#[tokio::test]
async fn probes_get_past_a_chat_that_is_longer_than_one_search() {
    let world = ordered_world().await;
    let mut conn = world.conn().await;
    world.open_circuit().await;
    world.seed_parked(450, "circuit_open").await;
    world
        .sql(
            "UPDATE whatsapp_webhook_events SET order_key = CASE message_id WHEN 'P450' THEN 'b' ELSE 'a' END
             WHERE parked IS NOT NULL;
             UPDATE whatsapp_webhooks SET look_at = now()",
        )
        .await;
    let mut taken = Vec::new();
    for _ in 0..12 {
        world.look_now().await;
        let token = Uuid::new_v4();
        for probe in claim_probes(&mut conn, 10, token, 60.0).await.unwrap() {
            ends(&world, &probe, token, Outcome::ProbeFailed).await;
            taken.push(probe.message_id);
        }
        assert_eq!(world.stranded().await, 0);
    }
    assert_eq!(taken[..3], ["P1", "P450", "P1"]);
}

/// One that claims what it can, and records it, until nothing is left.
async fn dispatcher(
    mut conn: AsyncPgConnection,
    ids: Vec<Uuid>,
) -> Vec<(String, chrono::DateTime<chrono::Utc>)> {
    let mut started = Vec::new();
    let mut idle = 0;
    while idle < 20 {
        let token = Uuid::new_v4();
        let claimed = claim(&mut conn, &ids, token, 60.0).await.unwrap();
        idle = if claimed.is_empty() { idle + 1 } else { 0 };
        started.extend(
            claimed
                .iter()
                .map(|claimed| (claimed.message_id.clone(), chrono::Utc::now())),
        );
        let records: Vec<_> = claimed
            .iter()
            .map(|claimed| world::record(claimed, token, Outcome::Delivered))
            .collect();
        record(&mut conn, &records).await.unwrap();
        tokio::task::yield_now().await;
    }
    started
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_dispatchers_deliver_each_chat_in_the_order_of_its_commits() {
    let world = ordered_world().await;
    let names: Vec<(String, String)> = (0..90)
        .map(|n| (format!("chat {}", n % 3), format!("{n:03}")))
        .collect();
    let names: Vec<(&str, &str)> = names
        .iter()
        .map(|(c, n)| (c.as_str(), n.as_str()))
        .collect();
    let ids = commit(&world, &names).await;
    let mut dispatchers = Vec::new();
    for _ in 0..3 {
        dispatchers.push(tokio::spawn(dispatcher(world.conn().await, ids.clone())));
    }
    let mut started = Vec::new();
    for dispatcher in dispatchers {
        started.extend(dispatcher.await.unwrap());
    }
    started.sort_by_key(|(_, at)| *at);
    assert_eq!(started.len(), 90);
    for chat in 0..3 {
        let of_chat: Vec<usize> = started
            .iter()
            .map(|(name, _)| name.parse::<usize>().unwrap())
            .filter(|n| n % 3 == chat)
            .collect();
        assert!(of_chat.is_sorted(), "chat {chat}: {of_chat:?}");
    }
}
