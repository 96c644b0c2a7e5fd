use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use domain::event_type::EventType;
use domain::message::NewMessage;
use domain::outbox::{Body, Content, NewOutgoing, Next, Outgoing, Target, Trouble};
use domain::statement::Statement;
use serde_json::json;

use crate::world::{World, accept, connect, lease};

const ANA: &str = "5511911112222@s.whatsapp.net";
const BIA: &str = "5511933334444@s.whatsapp.net";

fn text() -> Content {
    Content {
        body: Body::Text {
            text: "Olá!".to_owned(),
        },
        reply_to: None,
    }
}

async fn ask(world: &World, to: &str, id: &str) -> Outgoing {
    let new = NewOutgoing {
        client_id: world.connection.client_id,
        connection_id: world.connection.id,
        idempotency_key: None,
        request: b"{}",
        message_id: id,
        to,
        content: &text(),
    };
    Outgoing::insert(&mut world.conn().await, &new)
        .await
        .unwrap()
}

async fn next(world: &World) -> Next {
    Outgoing::next(&mut world.conn().await, world.connection.id)
        .await
        .unwrap()
}

async fn next_id(world: &World) -> String {
    match next(world).await {
        Next::Now(outgoing) => outgoing.message_id,
        other => panic!("{other:?}"),
    }
}

fn trouble(unconfirmed: bool) -> Trouble {
    Trouble {
        error: "no answer".to_owned(),
        unconfirmed,
    }
}

async fn settle(world: &World, outgoing: &Outgoing) {
    let lease = lease(world.connection.id);
    let trouble = trouble(false);
    let failed = outgoing
        .fail(&mut world.conn().await, lease, &trouble)
        .await;
    failed.unwrap();
}

#[tokio::test]
async fn a_message_that_waits_holds_up_those_to_the_same_address_and_no_others() {
    let world = World::new().await;
    let first = ask(&world, ANA, "A1").await;
    ask(&world, ANA, "A2").await;
    let bia = ask(&world, BIA, "B1").await;
    assert_eq!(next_id(&world).await, "A1");

    let mut conn = world.conn().await;
    let lease = lease(world.connection.id);
    first
        .postpone(&mut conn, lease, 60.0, &trouble(true))
        .await
        .unwrap();
    assert_eq!(next_id(&world).await, "B1");
    settle(&world, &bia).await;
    match next(&world).await {
        Next::In(seconds) => assert!((50.0..=60.0).contains(&seconds), "{seconds}"),
        other => panic!("{other:?}"),
    }

    world.sql("UPDATE whatsapp_outbox SET due_at = now()").await;
    assert_eq!(next_id(&world).await, "A1");
    settle(&world, &first).await;
    assert_eq!(next_id(&world).await, "A2");
}

#[tokio::test]
async fn a_deleted_connection_finds_its_messages_without_reading_those_of_others() {
    #[derive(QueryableByName)]
    struct Read {
        #[diesel(sql_type = BigInt)]
        rows: i64,
    }
    let world = World::new().await;
    ask(&world, ANA, "A1").await;
    let mut conn = world.conn().await;
    let other = connect(&mut conn, world.client.id, "5511955556666").await;
    let many = format!(
        r#"INSERT INTO whatsapp_outbox (id, client_id, connection_id, request_hash, message_id, "to", content,
               status, settled_at)
           SELECT gen_random_uuid(), {}, '{}', '', n::text, '{ANA}', '{{}}', 'sent', now()
           FROM generate_series(1, 5000) AS n"#,
        world.client.id, other.id
    );
    world.sql(&many).await;
    let read = conn
        .transaction(async |conn| {
            let deleted = format!(
                "DELETE FROM whatsapp_connections WHERE id = '{}'",
                world.connection.id
            );
            conn.batch_execute(&deleted).await?;
            let read: Read = Statement::new(
                "SELECT (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint AS rows
                 FROM pg_stat_xact_user_tables WHERE relname = 'whatsapp_outbox'",
            )
            .get_result(conn)
            .await?;
            diesel::QueryResult::Ok(read.rows)
        })
        .await;
    assert_eq!(read.unwrap(), 1);
    let left = world.count("SELECT count(*) FROM whatsapp_outbox").await;
    assert_eq!(left, 5000);
}

/// A received or sent message of the world's connection.
fn in_chat(
    world: &World,
    id: &str,
    chat: &str,
    is_sent: bool,
    other: &str,
    lid: &str,
) -> NewMessage {
    let mut message = world.message(id);
    message.chat = chat.to_owned();
    message.metadata = json!({"v": 1, "sender_lid": lid}).to_string();
    if is_sent {
        message.event_type = EventType::MessageSent;
        message.from.clone_from(&world.connection.phone_number);
        message.to = other.to_owned();
    } else {
        message.from = other.to_owned();
    }
    message
}

#[tokio::test]
async fn a_message_is_answered_in_its_own_chat_under_any_name_of_the_other_side() {
    const GROUP: &str = "120363021033254949@g.us";
    const LID: &str = "100000012345678@lid";
    const LATER: &str = "100000087654321@lid";
    let world = World::new().await;
    let mut conn = world.conn().await;
    let batch = [
        in_chat(&world, "number", ANA, false, "5511911112222", LID),
        in_chat(&world, "lid", LID, false, "5511911112222", LID),
        in_chat(&world, "sent", LID, true, "5511911112222", ""),
        in_chat(&world, "group", GROUP, false, "5511911112222", LID),
        in_chat(&world, "later", LATER, false, LATER, LATER),
    ];
    accept(&mut conn, &batch).await;
    let mapping = format!(
        "WITH device AS (INSERT INTO protocol_devices (connection_id) VALUES ('{}') RETURNING device_id)
         INSERT INTO protocol_lid_mappings
             (device_id, lid, phone_number, created_at, updated_at, learning_source)
         SELECT device_id, '100000087654321', '5511933334444', 0, 0, '' FROM device",
        world.connection.id
    );
    world.sql(&mapping).await;
    for (id, to, is_found) in [
        ("number", ANA, true),
        ("number", LID, true),
        ("number", BIA, false),
        ("number", GROUP, false),
        ("lid", ANA, true),
        ("lid", LID, true),
        ("lid", LATER, false),
        ("sent", ANA, true),
        ("sent", BIA, false),
        ("group", GROUP, true),
        ("group", ANA, false),
        ("group", LID, false),
        ("group", "120363021033254950@g.us", false),
        ("later", BIA, true),
        ("later", LATER, true),
        ("later", ANA, false),
    ] {
        let (client, connection) = (world.client.id, world.connection.id);
        let found = Target::find(&mut conn, client, connection, to, id).await;
        assert_eq!(found.unwrap().is_some(), is_found, "{id} {to}");
    }
}

#[tokio::test]
async fn a_message_that_may_have_gone_out_once_stays_unconfirmed() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let lease = lease(world.connection.id);
    for (tried, last, expected) in [
        (None, false, false),
        (None, true, true),
        (Some(false), false, false),
        (Some(true), false, true),
    ] {
        let asked = ask(&world, ANA, "A1").await;
        if let Some(unconfirmed) = tried {
            let trouble = trouble(unconfirmed);
            let postponed = asked.postpone(&mut conn, lease, 0.0, &trouble);
            postponed.await.unwrap();
        }
        let failed = asked.fail(&mut conn, lease, &trouble(last)).await;
        failed.unwrap();
        let found = Outgoing::find(&mut conn, asked.id).await.unwrap().unwrap();
        assert_eq!(found.unconfirmed, expected, "{tried:?} {last}");
        assert_eq!(found.attempts, i32::from(tried.is_some()));
    }
}

#[tokio::test]
async fn a_message_that_is_put_off_lets_others_go_first_and_has_used_up_no_attempt() {
    let world = World::new().await;
    let first = ask(&world, ANA, "A1").await;
    ask(&world, BIA, "B1").await;
    let mut conn = world.conn().await;
    let lease = lease(world.connection.id);
    first.put_off(&mut conn, lease, 60.0).await.unwrap();
    assert_eq!(next_id(&world).await, "B1");
    let found = Outgoing::find(&mut conn, first.id).await.unwrap().unwrap();
    assert_eq!((found.attempts, found.error), (0, None));
}
