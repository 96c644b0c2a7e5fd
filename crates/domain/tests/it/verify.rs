use std::collections::HashMap;

use chrono::{TimeDelta, Utc};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use domain::claim::{Park, Release, claim, claim_due, claim_probes, release};
use domain::event::Event;
use domain::ids;
use domain::message::NewMessage;
use domain::parking::{Reason, park_followers, release_parked, set_aside};
use domain::record::{Outcome, record};
use domain::replay::{Deletion, Events, Letters, Settled};
use domain::span::Span;
use domain::verify::{self, Finding, Rule};
use domain::webhook::{Changes, Webhook};
use uuid::Uuid;

use crate::world::{self, World};

/// What was found, by rule; all rules are there.
async fn verified(conn: &mut AsyncPgConnection) -> HashMap<Rule, Finding> {
    let findings = verify::run(conn, None).await.unwrap();
    assert_eq!(
        findings
            .iter()
            .map(|finding| finding.rule)
            .collect::<Vec<_>>(),
        Rule::ALL
    );
    findings
        .into_iter()
        .map(|finding| (finding.rule, finding))
        .collect()
}

async fn assert_kept(conn: &mut AsyncPgConnection) {
    for finding in verify::run(conn, None).await.unwrap() {
        assert_eq!(finding.violations, 0, "{finding:?}");
    }
}

/// Everything that can become of an event: returns the ids by what it became.
struct Lives {
    delivered: Uuid,
    failed: Uuid,
    retried: Uuid,
    parked: Uuid,
    fresh: Uuid,
}

async fn live(world: &World) -> Lives {
    let mut conn = world.conn().await;
    let ids = world
        .accept(&["delivered", "failed", "retried", "parked", "fresh"])
        .await;
    let token = Uuid::new_v4();
    let claimed = claim(&mut conn, &ids[..4], token, 60.0).await.unwrap();
    let of = |id: Uuid| claimed.iter().find(|claimed| claimed.id == id).unwrap();
    let dead = Outcome::Dead {
        reason: "the last attempt failed".to_owned(),
        gone: false,
    };
    let outcomes = [
        (ids[0], Outcome::Delivered),
        (ids[1], dead),
        (ids[2], Outcome::RetryIn(60.0)),
    ];
    let batch: Vec<_> = outcomes
        .into_iter()
        .map(|(id, outcome)| world::record(of(id), token, outcome))
        .collect();
    record(&mut conn, &batch).await.unwrap();
    let park = Release {
        event_id: ids[3],
        webhook_id: world.webhook.id,
        token,
        delay_seconds: 60.0,
        park: Some(Park {
            reason: Reason::Backlog,
            step: 1,
        }),
    };
    assert_eq!(release(&mut conn, &[park]).await.unwrap(), 1);
    Lives {
        delivered: ids[0],
        failed: ids[1],
        retried: ids[2],
        parked: ids[3],
        fresh: ids[4],
    }
}

#[tokio::test]
async fn what_becomes_of_events_keeps_the_promise() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let lives = live(&world).await;
    let found = verified(&mut conn).await;
    assert_kept(&mut conn).await;
    assert_eq!(found[&Rule::FanOut].checked, 5);
    assert_eq!(found[&Rule::Settled].checked, 5);
    assert_eq!(found[&Rule::Proven].checked, 1);
    assert_eq!(
        found[&Rule::Looked].checked,
        1,
        "one webhook has parked events"
    );

    for id in [lives.failed, lives.delivered] {
        Event::requeue(&mut conn, world.client.id, id)
            .await
            .unwrap();
        assert_kept(&mut conn).await;
    }
    assert!(
        Webhook::delete(&mut conn, world.client.id, world.webhook.id)
            .await
            .unwrap()
    );
    assert_kept(&mut conn).await;
}

/// One thing of a kept promise is broken; the rule tells it, by this id, and no other rule does.
async fn assert_tells(world: &World, break_it: String, rule: Rule, id: Uuid) {
    let mut conn = world.conn().await;
    conn.batch_execute(&break_it).await.unwrap();
    for findings in [
        verify::run(&mut conn, None).await.unwrap(),
        verify::violations(&mut conn).await.unwrap(),
    ] {
        for finding in &findings {
            let expected = if finding.rule == rule {
                vec![id]
            } else {
                vec![]
            };
            assert_eq!(finding.ids, expected, "{break_it}: {finding:?}");
            assert_eq!(finding.violations, expected.len() as i64);
            assert_eq!(
                finding.is_broken(),
                finding.rule == rule && !rule.is_warning()
            );
        }
    }
}

/// A world in which an event's id is that of now, as [`verify::violations`] looks at it.
async fn recent() -> (World, Lives, Uuid) {
    let mut world = World::new().await;
    world.at = Utc::now();
    let lives = live(&world).await;
    let message = world.message("delivered").id;
    (world, lives, message)
}

#[tokio::test]
async fn an_event_that_is_missing_is_told_by_its_message() {
    let (world, lives, message) = recent().await;
    let gone = format!(
        "DELETE FROM whatsapp_webhook_events WHERE id = '{}'",
        lives.delivered
    );
    assert_tells(&world, gone, Rule::FanOut, message).await;
}

#[tokio::test]
async fn a_failed_event_without_a_dead_letter_is_told_unless_its_client_deleted_that() {
    let (world, lives, _) = recent().await;
    let lost = "DELETE FROM whatsapp_dead_letters".to_owned();
    assert_tells(&world, lost, Rule::Settled, lives.failed).await;
    let mut conn = world.conn().await;
    let deleted =
        "UPDATE whatsapp_webhook_events SET dead_letter_deleted_at = now() WHERE status = 'failed'";
    conn.batch_execute(deleted).await.unwrap();
    assert_kept(&mut conn).await;
}

#[tokio::test]
async fn a_pending_event_that_waits_for_nothing_is_told() {
    for reason in ["NULL", "'whim'"] {
        let (world, lives, _) = recent().await;
        let lost = format!(
            "UPDATE whatsapp_webhook_events SET parked = {reason} WHERE id = '{}'",
            lives.parked
        );
        assert_tells(&world, lost, Rule::Settled, lives.parked).await;
    }
}

#[tokio::test]
async fn a_parked_event_at_which_nobody_will_look_is_told() {
    for change in [
        "look_at = NULL",
        "look_at = NULL, is_active = false, deleted_at = now()",
    ] {
        let (world, lives, _) = recent().await;
        let unseen = format!("UPDATE whatsapp_webhooks SET {change}");
        assert_tells(&world, unseen, Rule::Looked, lives.parked).await;
    }
    // It is looked at when it is set active.
    let (world, ..) = recent().await;
    let mut conn = world.conn().await;
    let inactive = "UPDATE whatsapp_webhooks SET look_at = NULL, is_active = false";
    conn.batch_execute(inactive).await.unwrap();
    assert_kept(&mut conn).await;
}

#[tokio::test]
async fn a_delivered_event_without_an_attempt_that_succeeded_is_told() {
    for loss in [
        "DELETE FROM whatsapp_delivery_attempts WHERE event_id = ",
        "UPDATE whatsapp_delivery_attempts SET superseded = true WHERE event_id = ",
        "UPDATE whatsapp_delivery_attempts SET error_class = 'timeout' WHERE event_id = ",
    ] {
        let (world, lives, _) = recent().await;
        let loss = format!("{loss}'{}'", lives.delivered);
        assert_tells(&world, loss, Rule::Proven, lives.delivered).await;
    }
}

#[tokio::test]
async fn an_attempt_is_found_also_when_its_outcome_was_recorded_long_after_it() {
    let (world, lives, _) = recent().await;
    let mut conn = world.conn().await;
    let old = ids::floor(Utc::now() - TimeDelta::days(3));
    let late = format!(
        "UPDATE whatsapp_delivery_attempts SET id = '{old}' WHERE event_id = '{}'",
        lives.delivered
    );
    conn.batch_execute(&late).await.unwrap();
    assert_kept(&mut conn).await;
}

#[tokio::test]
async fn an_event_that_waits_for_its_turn_behind_nothing_is_told() {
    let (world, lives, _) = recent().await;
    let mut conn = world.conn().await;
    let ordered = "UPDATE whatsapp_webhooks SET ordered = true;
         UPDATE whatsapp_webhook_events SET order_key = chat;
         UPDATE whatsapp_webhook_events SET parked = 'order' WHERE message_id = 'fresh'";
    conn.batch_execute(ordered).await.unwrap();
    assert_kept(&mut conn).await;
    let through =
        "UPDATE whatsapp_webhook_events SET order_key = 'another chat' WHERE message_id <> 'fresh'";
    assert_tells(&world, through.to_owned(), Rule::InTurn, lives.fresh).await;
}

#[tokio::test]
async fn what_is_overdue_is_a_warning_that_says_for_how_long() {
    for (which, rule) in [
        (
            "claim_token = gen_random_uuid(), claimed_until = now() - interval '10 minutes',",
            Rule::Claims,
        ),
        ("", Rule::Due),
    ] {
        let (world, lives, _) = recent().await;
        let late = format!(
            "UPDATE whatsapp_webhook_events SET {which} next_retry_at = now() - interval '10 minutes'
             WHERE id = '{}'",
            lives.retried
        );
        assert_tells(&world, late, rule, lives.retried).await;
        let oldest = verified(&mut world.conn().await).await[&rule]
            .oldest_seconds
            .unwrap();
        assert!((600.0..700.0).contains(&oldest), "{oldest}");
    }
}

#[tokio::test]
async fn what_is_past_its_retention_is_not_asked_for_its_other_half() {
    let mut world = World::new().await;
    for (days, violations) in [(9, 0), (6, 1)] {
        world.at = Utc::now() - TimeDelta::days(days);
        let token = Uuid::new_v4();
        let claimed = world.claimed(&format!("{days} days"), token).await;
        let mut conn = world.conn().await;
        let delivered = world::record(&claimed, token, Outcome::Delivered);
        record(&mut conn, &[delivered]).await.unwrap();
        let lost = format!(
            "DELETE FROM whatsapp_webhook_events WHERE id = '{}';
             DELETE FROM whatsapp_delivery_attempts",
            claimed.id
        );
        conn.batch_execute(&lost).await.unwrap();
        let findings = verify::run(&mut conn, Some(8)).await.unwrap();
        let total: i64 = findings.iter().map(|finding| finding.violations).sum();
        assert_eq!(total, violations, "{findings:?}");
    }
}

#[tokio::test]
async fn a_large_table_is_looked_through_to_its_end() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    // So many to a millisecond that a range can't end where it would like to.
    let many = format!(
        r#"INSERT INTO whatsapp_messages (id, client_id, connection_id, event_type, message_id, chat,
               "from", "to", message_type, content, metadata, "timestamp", fan_out)
           SELECT (lpad(to_hex(n / 3000), 12, '0') || substr(md5(n::text), 13))::uuid, {client}, '{connection}',
               'message', 'M' || n, '', '', '', 'text', '', '{{}}', now(), 1
           FROM generate_series(1, 25000) n;
           INSERT INTO whatsapp_webhook_events (id, client_id, webhook_id, source_id, event_type,
               message_id, chat, "from", "to", message_type, content, metadata, "timestamp", next_retry_at)
           SELECT (left(id::text, 13) || substr(md5(id::text), 13))::uuid, client_id, '{webhook}', id, 'message',
               message_id, '', '', '', 'text', '', '{{}}', now(), now()
           FROM whatsapp_messages"#,
        client = world.client.id,
        connection = world.connection.id,
        webhook = world.webhook.id,
    );
    conn.batch_execute(&many).await.unwrap();
    let found = verified(&mut conn).await;
    assert_kept(&mut conn).await;
    for rule in [Rule::FanOut, Rule::Settled] {
        assert_eq!(found[&rule].checked, 25_000, "each once");
    }

    let lost = "DELETE FROM whatsapp_webhook_events WHERE message_id IN ('M1', 'M12000', 'M24999');
         UPDATE whatsapp_webhook_events SET next_retry_at = NULL, parked = NULL WHERE message_id LIKE '%7'";
    conn.batch_execute(lost).await.unwrap();
    let found = verified(&mut conn).await;
    assert_eq!(found[&Rule::FanOut].violations, 3);
    assert_eq!(found[&Rule::Settled].violations, 2500);
    assert_eq!(found[&Rule::Settled].ids.len(), verify::SHOWN);
}

/// Messages come, are claimed, fail, are parked, released and delivered, and chats go in order.
async fn traffic(world: &World, round: usize) {
    let mut conn = world.conn().await;
    let batch: Vec<NewMessage> = (0..6)
        .map(|n| NewMessage {
            chat: format!("{n}@s.whatsapp.net"),
            ..world.message(&format!("{round}-{n}"))
        })
        .collect();
    world::accept(&mut conn, &batch).await;
    let token = Uuid::new_v4();
    for claimed in [
        claim_due(&mut conn, 10, token, 60.0).await.unwrap(),
        claim_probes(&mut conn, 10, token, 60.0).await.unwrap(),
    ] {
        let (tried, given_back) = claimed.split_at(claimed.len() - claimed.len() / 3);
        let batch: Vec<_> = tried
            .iter()
            .enumerate()
            .map(|(n, claimed)| {
                let outcome = match (n + round) % 5 {
                    0 if claimed.probe => Outcome::ProbeFailed,
                    0 => Outcome::RetryIn(0.0),
                    1 => Outcome::Dead {
                        reason: "enough".to_owned(),
                        gone: false,
                    },
                    _ => Outcome::Delivered,
                };
                world::record(claimed, token, outcome)
            })
            .collect();
        record(&mut conn, &batch).await.unwrap();
        let releases: Vec<_> = given_back
            .iter()
            .map(|claimed| Release {
                event_id: claimed.id,
                webhook_id: claimed.webhook_id,
                token,
                delay_seconds: 0.0,
                park: Some(Park {
                    reason: Reason::RateLimit,
                    step: 2,
                }),
            })
            .collect();
        release(&mut conn, &releases).await.unwrap();
    }
    let (client, webhook) = (world.client.id, world.webhook.id);
    let mut again = Events::begin(&mut conn, client, webhook, Settled::Failed, Span::default())
        .await
        .unwrap();
    let mut letters = Letters::begin(&mut conn, client, webhook, Span::default())
        .await
        .unwrap();
    let mut deletion = Deletion::begin(&mut conn, client, webhook).await.unwrap();
    match round % 3 {
        0 => again.step(&mut conn).await.unwrap(),
        1 => letters.step(&mut conn).await.unwrap(),
        _ => deletion.step(&mut conn).await.unwrap(),
    };
    set_aside(&mut conn, 10).await.unwrap();
    park_followers(&mut conn, 10).await.unwrap();
    release_parked(&mut conn, 10).await.unwrap();
    // Nobody's wait is long here.
    for soon in [
        "UPDATE whatsapp_webhook_events SET next_retry_at = now() WHERE id IN (
             SELECT id FROM whatsapp_webhook_events
             WHERE status = 'pending' AND next_retry_at > now() AND claim_token IS NULL AND parked IS NULL
             ORDER BY id FOR UPDATE SKIP LOCKED)",
        "UPDATE whatsapp_webhooks SET look_at = now() WHERE look_at > now()",
    ] {
        conn.batch_execute(soon).await.unwrap();
    }
}

#[tokio::test]
async fn the_promise_holds_in_every_snapshot_while_events_are_on_their_way() {
    let world = World::new().await;
    let ordered = Changes {
        ordered: Some(true),
        ..Changes::default()
    };
    let (client, webhook) = (world.client.id, world.webhook.id);
    Webhook::update(&mut world.conn().await, client, webhook, &ordered)
        .await
        .unwrap();

    let dispatchers = async {
        for round in (0..90).step_by(3) {
            tokio::join!(
                traffic(&world, round),
                traffic(&world, round + 1),
                traffic(&world, round + 2)
            );
        }
    };
    let mut conn = world.conn().await;
    let verifier = async {
        loop {
            assert_kept(&mut conn).await;
        }
    };
    tokio::select! {
        () = dispatchers => {}
        () = verifier => {}
    }
    assert_kept(&mut world.conn().await).await;
    // It was not asked of nothing.
    let found = verified(&mut world.conn().await).await;
    assert_eq!(found[&Rule::FanOut].checked, 540);
    assert!(found[&Rule::Proven].checked > 20, "{found:?}");
}
