//! No parked event is without somebody who will look at it.

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use domain::claim::{Claimed, Park, Release, claim, claim_probes, release};
use domain::parking::{Reason, release_parked, set_aside};
use domain::record::{Outcome, record};
use domain::statement::Statement;
use domain::verify::{self, Rule};
use domain::webhook::Webhook;
use uuid::Uuid;

use crate::world::{self, World};

fn parked(claimed: &Claimed, token: Uuid) -> Release {
    Release {
        event_id: claimed.id,
        webhook_id: claimed.webhook_id,
        token,
        delay_seconds: 0.0,
        park: Some(Park {
            reason: Reason::Backlog,
            step: 1,
        }),
    }
}

/// One event, parked.
async fn park(world: &World) -> Uuid {
    let token = Uuid::new_v4();
    let claimed = world.claimed("A", token).await;
    let mut conn = world.conn().await;
    release(&mut conn, &[parked(&claimed, token)])
        .await
        .unwrap();
    claimed.id
}

async fn assert_looked_at(conn: &mut AsyncPgConnection) {
    let findings = verify::run(conn, None).await.unwrap();
    let looked = findings.iter().find(|finding| finding.rule == Rule::Looked);
    assert_eq!(looked.unwrap().violations, 0, "{looked:?}");
}

const OPEN: &str =
    "UPDATE whatsapp_webhooks SET status = 'failed', opened_at = now(), look_at = now()";
const LOOK_NOW: &str = "UPDATE whatsapp_webhooks SET look_at = now() WHERE look_at IS NOT NULL";

#[tokio::test]
async fn what_is_parked_while_its_webhook_is_deleted_becomes_a_dead_letter() {
    for probe in [false, true] {
        let world = World::new().await;
        let token = Uuid::new_v4();
        let mut conn = world.conn().await;
        let claimed = match probe {
            false => world.claimed("A", token).await,
            true => {
                park(&world).await;
                conn.batch_execute(OPEN).await.unwrap();
                claim_probes(&mut conn, 1, token, 60.0)
                    .await
                    .unwrap()
                    .remove(0)
            }
        };
        let [mut holder, mut deleter, mut dispatcher] =
            [world.conn().await, world.conn().await, world.conn().await];
        let hold = "BEGIN; SELECT FROM whatsapp_webhooks FOR SHARE";
        holder.batch_execute(hold).await.unwrap();
        let (client, webhook) = (world.client.id, world.webhook.id);
        let deleted = tokio::spawn(async move {
            Webhook::delete(&mut deleter, client, webhook)
                .await
                .unwrap()
        });
        world.waiting(1).await;
        // It has locked the event, which the deletion therefore leaves out.
        let event = claimed.id;
        let given_back = tokio::spawn(async move {
            match probe {
                false => drop(
                    release(&mut dispatcher, &[parked(&claimed, token)])
                        .await
                        .unwrap(),
                ),
                true => {
                    let failed = world::record(&claimed, token, Outcome::ProbeFailed { wait: 0.0 });
                    record(&mut dispatcher, &[failed]).await.unwrap();
                }
            }
        });
        world.waiting(2).await;
        holder.batch_execute("COMMIT").await.unwrap();
        assert!(deleted.await.unwrap());
        given_back.await.unwrap();

        assert_looked_at(&mut conn).await;
        set_aside(&mut conn, 10).await.unwrap();
        assert_eq!(world.event(event).await.status, "failed");
    }
}

#[tokio::test]
async fn a_parked_event_that_is_locked_at_the_look_is_looked_at_again() {
    let world = World::new().await;
    let (mut conn, mut holder) = (world.conn().await, world.conn().await);
    let event = park(&world).await;
    // As whoever parks those behind the first of a chat locks that.
    let hold = "BEGIN; SELECT FROM whatsapp_webhook_events FOR SHARE";
    holder.batch_execute(hold).await.unwrap();
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 0);
    holder.batch_execute("COMMIT").await.unwrap();

    assert_looked_at(&mut conn).await;
    conn.batch_execute(LOOK_NOW).await.unwrap();
    assert_eq!(release_parked(&mut conn, 10).await.unwrap(), 1);
    assert_eq!(world.event(event).await.parked, None);
}

#[tokio::test]
async fn an_open_circuit_whose_only_event_is_locked_is_probed_later() {
    let world = World::new().await;
    let (mut conn, mut holder) = (world.conn().await, world.conn().await);
    park(&world).await;
    conn.batch_execute(OPEN).await.unwrap();
    let hold = "BEGIN; SELECT FROM whatsapp_webhook_events FOR SHARE";
    holder.batch_execute(hold).await.unwrap();
    let probe = async |conn: &mut AsyncPgConnection| {
        claim_probes(conn, 1, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .len()
    };
    assert_eq!(probe(&mut conn).await, 0);
    holder.batch_execute("COMMIT").await.unwrap();

    assert_looked_at(&mut conn).await;
    assert_eq!(probe(&mut conn).await, 0, "not at once");
    conn.batch_execute(LOOK_NOW).await.unwrap();
    assert_eq!(probe(&mut conn).await, 1);
}

#[tokio::test]
async fn an_open_circuit_whose_parked_events_are_not_in_their_turn_is_probed_later() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let ids = world.accept(&["A", "B"]).await;
    let token = Uuid::new_v4();
    let second = claim(&mut conn, &ids[1..], token, 60.0)
        .await
        .unwrap()
        .remove(0);
    release(&mut conn, &[parked(&second, token)]).await.unwrap();
    let ordered = "UPDATE whatsapp_webhooks SET ordered = true;
         UPDATE whatsapp_webhook_events SET order_key = chat";
    conn.batch_execute(ordered).await.unwrap();
    conn.batch_execute(OPEN).await.unwrap();
    assert!(
        claim_probes(&mut conn, 1, Uuid::new_v4(), 60.0)
            .await
            .unwrap()
            .is_empty()
    );
    assert_looked_at(&mut conn).await;
}

#[tokio::test]
async fn nobody_looks_any_more_when_nothing_is_parked() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    park(&world).await;
    for released in [1, 0, 0] {
        assert_eq!(release_parked(&mut conn, 10).await.unwrap(), released);
        conn.batch_execute(LOOK_NOW).await.unwrap();
    }
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }
    let looks: Count =
        Statement::new("SELECT count(*) AS count FROM whatsapp_webhooks WHERE look_at IS NOT NULL")
            .get_result(&mut conn)
            .await
            .unwrap();
    assert_eq!(looks.count, 0);
}
