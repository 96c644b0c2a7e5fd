use chrono::{TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use domain::claim::claim;
use domain::parking::release_parked;
use domain::record::{Outcome, record};
use domain::replay::{Deletion, Events, Letters, Settled, Step};
use domain::schema::{whatsapp_dead_letters as dead_letters, whatsapp_webhook_events as events};
use domain::span::Span;
use domain::verify;
use domain::webhook::{Changes, Webhook};
use uuid::Uuid;

use crate::world::{self, World};

/// Events of these names, each attempted once: every second one is delivered, the others are dead.
async fn settle(world: &World, names: &[&str]) -> Vec<Uuid> {
    let ids = world.accept(names).await;
    let mut conn = world.conn().await;
    let token = Uuid::new_v4();
    let claimed = claim(&mut conn, &ids, token, 60.0).await.unwrap();
    let outcome = |id: Uuid| match ids.iter().position(|other| *other == id).unwrap() % 2 {
        0 => Outcome::Delivered,
        _ => Outcome::Dead {
            reason: "enough".to_owned(),
            gone: false,
        },
    };
    let batch: Vec<_> = claimed
        .iter()
        .map(|claimed| world::record(claimed, token, outcome(claimed.id)))
        .collect();
    record(&mut conn, &batch).await.unwrap();
    ids
}

async fn begin(world: &World, settled: Settled, span: Span) -> Events {
    let mut conn = world.conn().await;
    Events::begin(&mut conn, world.client.id, world.webhook.id, settled, span)
        .await
        .unwrap()
}

async fn letters(world: &World) -> Letters {
    let mut conn = world.conn().await;
    Letters::begin(
        &mut conn,
        world.client.id,
        world.webhook.id,
        Span::default(),
    )
    .await
    .unwrap()
}

/// Steps to the end; how many were done.
async fn all(conn: &mut AsyncPgConnection, mut events: Events) -> usize {
    let mut total = 0;
    loop {
        match events.step(conn).await.unwrap() {
            Step::Done(count) => total += count,
            Step::End => return total,
            other => panic!("{other:?}"),
        }
    }
}

async fn parked(conn: &mut AsyncPgConnection) -> Vec<Uuid> {
    events::table
        .filter(events::parked.eq("backlog"))
        .filter(events::status.eq("pending"))
        .filter(events::attempt_count.eq(0))
        .filter(events::next_retry_at.is_null())
        .order(events::sequence)
        .select(events::id)
        .load(conn)
        .await
        .unwrap()
}

async fn count_letters(conn: &mut AsyncPgConnection) -> i64 {
    dead_letters::table.count().get_result(conn).await.unwrap()
}

async fn assert_kept(conn: &mut AsyncPgConnection) {
    for finding in verify::run(conn, None).await.unwrap() {
        assert_eq!(finding.violations, 0, "{finding:?}");
    }
}

#[tokio::test]
async fn what_failed_is_parked_anew_and_flows() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let ids = settle(&world, &["A", "B", "C", "D"]).await;
    let pending = world.accept(&["pending"]).await[0];
    assert_eq!(count_letters(&mut conn).await, 2);

    let failed = begin(&world, Settled::Failed, Span::default()).await;
    assert_eq!(all(&mut conn, failed).await, 2);
    assert_eq!(parked(&mut conn).await, [ids[1], ids[3]]);
    assert_eq!(count_letters(&mut conn).await, 0);
    assert_eq!(world.event(ids[1]).await.error, None);
    assert_eq!(world.event(pending).await.parked, None);
    assert_kept(&mut conn).await;
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 2);
    assert_kept(&mut conn).await;

    let rest = begin(&world, Settled::All, Span::default()).await;
    assert_eq!(
        all(&mut conn, rest).await,
        2,
        "what is pending by now stays as it is"
    );
    assert_eq!(parked(&mut conn).await, [ids[0], ids[2]]);
    assert_kept(&mut conn).await;
}

#[tokio::test]
async fn a_span_of_many_events_is_found_and_nothing_else() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    // One a minute, the last one now, each committed within a transaction of up to half an hour.
    let many = format!(
        r#"INSERT INTO whatsapp_webhook_events (id, client_id, webhook_id, source_id, event_type, message_id,
               chat, "from", "to", message_type, content, metadata, "timestamp", status, created_at)
           SELECT gen_random_uuid(), {}, '{}', gen_random_uuid(), 'message', n::text,
               '', '', '', 'text', '', '{{}}', now(), 'delivered', now() - make_interval(mins => 5000 - n + n % 30)
           FROM generate_series(1, 5000) n"#,
        world.client.id, world.webhook.id
    );
    conn.batch_execute(&many).await.unwrap();
    let minutes_ago = |minutes| Some(Utc::now() - TimeDelta::minutes(minutes));
    for (since, until) in [
        (None, minutes_ago(4000)),
        (minutes_ago(4700), minutes_ago(900)),
        (minutes_ago(20), None),
        (minutes_ago(9000), None),
        (None, minutes_ago(9000)),
        (Some(Utc::now() + TimeDelta::hours(9)), None),
    ] {
        let expected: i64 = events::table
            .filter(events::created_at.ge(since.unwrap_or(chrono::DateTime::UNIX_EPOCH)))
            .filter(events::created_at.lt(until.unwrap_or(Utc::now() + TimeDelta::days(1))))
            .count()
            .get_result(&mut conn)
            .await
            .unwrap();
        let span = begin(&world, Settled::Delivered, Span { since, until }).await;
        assert_eq!(
            all(&mut conn, span).await as i64,
            expected,
            "{since:?} {until:?}"
        );
        assert_eq!(parked(&mut conn).await.len() as i64, expected);
        let again = "UPDATE whatsapp_webhook_events SET status = 'delivered', parked = NULL";
        conn.batch_execute(again).await.unwrap();
    }
}

#[tokio::test]
async fn an_event_that_another_holds_is_tried_again_and_not_waited_for() {
    let world = World::new().await;
    let (mut conn, mut holder) = (world.conn().await, world.conn().await);
    let ids = settle(&world, &["A", "B", "C"]).await;
    let hold = format!(
        "BEGIN; SELECT FROM whatsapp_webhook_events WHERE id = '{}' FOR UPDATE",
        ids[0]
    );
    holder.batch_execute(&hold).await.unwrap();

    let mut both = begin(&world, Settled::All, Span::default()).await;
    assert_eq!(both.step(&mut conn).await.unwrap(), Step::Held(2));
    assert_eq!(both.step(&mut conn).await.unwrap(), Step::Held(0));
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(both.step(&mut conn).await.unwrap(), Step::Done(1));
    assert_eq!(both.step(&mut conn).await.unwrap(), Step::End);
    assert_eq!(parked(&mut conn).await.len(), 3);
}

#[tokio::test]
async fn what_is_held_for_long_is_left_to_its_holder() {
    let world = World::new().await;
    let (mut conn, mut holder) = (world.conn().await, world.conn().await);
    settle(&world, &["A"]).await;
    let hold = "BEGIN; SELECT FROM whatsapp_webhook_events FOR UPDATE";
    holder.batch_execute(hold).await.unwrap();
    let mut delivered = begin(&world, Settled::Delivered, Span::default()).await;
    let mut held = 0;
    while delivered.step(&mut conn).await.unwrap() == Step::Held(0) {
        held += 1;
    }
    assert!((10..1000).contains(&held));
    assert_eq!(delivered.step(&mut conn).await.unwrap(), Step::End);
}

#[tokio::test]
async fn nothing_is_parked_for_a_webhook_that_takes_nothing() {
    for deleted in [false, true] {
        let world = World::new().await;
        let mut conn = world.conn().await;
        settle(&world, &["A", "B"]).await;
        let mut events = begin(&world, Settled::All, Span::default()).await;
        let mut letters = letters(&world).await;
        let (client, webhook) = (world.client.id, world.webhook.id);
        match deleted {
            true => assert!(Webhook::delete(&mut conn, client, webhook).await.unwrap()),
            false => {
                let inactive = Changes {
                    is_active: Some(false),
                    ..Changes::default()
                };
                Webhook::update(&mut conn, client, webhook, &inactive)
                    .await
                    .unwrap();
            }
        }
        assert_eq!(events.step(&mut conn).await.unwrap(), Step::NoReceiver);
        assert_eq!(letters.step(&mut conn).await.unwrap(), Step::NoReceiver);
        assert!(parked(&mut conn).await.is_empty());
        assert_eq!(count_letters(&mut conn).await, 1);
        assert_kept(&mut conn).await;
    }
}

#[tokio::test]
async fn a_dead_letter_whose_event_is_gone_becomes_that_event_again() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let ids = settle(&world, &["A", "B", "C", "D"]).await;
    let before = world.event(ids[1]).await;
    let gone = format!(
        "DELETE FROM whatsapp_webhook_events WHERE id = '{}';
         UPDATE whatsapp_webhooks SET ordered = true",
        ids[1]
    );
    conn.batch_execute(&gone).await.unwrap();

    let mut letters = letters(&world).await;
    assert_eq!(letters.step(&mut conn).await.unwrap(), Step::Done(2));
    assert_eq!(letters.step(&mut conn).await.unwrap(), Step::End);
    assert_eq!(parked(&mut conn).await, [ids[3], ids[1]]);
    assert_eq!(count_letters(&mut conn).await, 0);
    let after = world.event(ids[1]).await;
    assert_eq!(after.payload().unwrap(), before.payload().unwrap());
    let key: Option<String> = events::table
        .find(ids[1])
        .select(events::order_key)
        .first(&mut conn)
        .await
        .unwrap();
    assert!(key.is_some(), "the webhook wants order by now");
    assert_kept(&mut conn).await;
}

#[tokio::test]
async fn a_dead_letter_that_comes_while_others_are_replayed_is_not_replayed_with_them() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    settle(&world, &["A", "B"]).await;
    let mut letters = letters(&world).await;
    settle(&world, &["C", "D"]).await;
    assert_eq!(letters.step(&mut conn).await.unwrap(), Step::Done(1));
    assert_eq!(letters.step(&mut conn).await.unwrap(), Step::End);
    assert_eq!(count_letters(&mut conn).await, 1);
}

#[tokio::test]
async fn dead_letters_are_deleted_and_their_events_still_prove_that_nothing_is_lost() {
    let world = World::new().await;
    let (mut conn, mut holder) = (world.conn().await, world.conn().await);
    let ids = settle(&world, &["A", "B", "C", "D", "E", "F"]).await;
    let gone = format!(
        "DELETE FROM whatsapp_webhook_events WHERE id = '{}'",
        ids[1]
    );
    conn.batch_execute(&gone).await.unwrap();
    let hold = format!(
        "BEGIN; SELECT FROM whatsapp_webhook_events WHERE id = '{}' FOR UPDATE",
        ids[3]
    );
    holder.batch_execute(&hold).await.unwrap();

    let mut deletion = Deletion::begin(&mut conn, world.client.id, world.webhook.id)
        .await
        .unwrap();
    assert_eq!(deletion.step(&mut conn).await.unwrap(), Step::Held(2));
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(deletion.step(&mut conn).await.unwrap(), Step::Done(1));
    assert_eq!(deletion.step(&mut conn).await.unwrap(), Step::End);
    assert_eq!(count_letters(&mut conn).await, 0);
    assert_eq!(world.event(ids[5]).await.status, "failed");
    let findings = verify::run(&mut conn, None).await.unwrap();
    let broken: Vec<_> = findings
        .iter()
        .filter(|finding| finding.is_broken())
        .collect();
    assert_eq!(broken.len(), 1, "only the event that this test took away");
    assert_eq!(broken[0].rule, verify::Rule::FanOut);
}
