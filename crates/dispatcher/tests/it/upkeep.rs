//! What one dispatcher does for all besides partitions.

use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use domain::idempotency::{Claim, Request};
use domain::keyring::Keyring;
use domain::outbox::{Body, Content, NewOutgoing, Outgoing};
use domain::upload::Upload;
use testkit::eventually;
use uuid::Uuid;

use crate::world::{Hook, SOON, World};

#[derive(Debug, PartialEq, QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<Text>)]
    error: Option<String>,
}

async fn ask(conn: &mut AsyncPgConnection, hook: &Hook, age: &str) -> Uuid {
    let content = Content {
        body: Body::Text {
            text: "Olá!".to_owned(),
        },
        reply_to: None,
    };
    let new = NewOutgoing {
        client_id: hook.connection.client_id,
        connection_id: hook.connection.id,
        idempotency_key: None,
        request: b"{}",
        message_id: "3EB0",
        to: "5511999999999@s.whatsapp.net",
        content: &content,
    };
    let id = Outgoing::insert(conn, &new).await.unwrap().id;
    let aged = format!(
        "UPDATE whatsapp_outbox SET created_at = now() - interval '{age}' WHERE id = '{id}'"
    );
    conn.batch_execute(&aged).await.unwrap();
    id
}

async fn row(conn: &mut AsyncPgConnection, id: Uuid) -> Option<Row> {
    diesel::sql_query("SELECT status, error FROM whatsapp_outbox WHERE id = $1")
        .bind::<SqlUuid, _>(id)
        .get_result(conn)
        .await
        .optional()
        .unwrap()
}

#[tokio::test]
async fn what_could_not_be_sent_for_a_day_is_given_up_and_old_answers_and_files_are_forgotten() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    let mut conn = world.database.connect().await;
    let expired = ask(&mut conn, &hook, "25 hours").await;
    let waiting = ask(&mut conn, &hook, "23 hours").await;
    let settled = ask(&mut conn, &hook, "9 days").await;
    let client = world.client.id;
    let mut uploads = Vec::new();
    for _ in 0..2 {
        let upload = Upload::insert(&mut conn, client, "image/jpeg", b"a").await;
        uploads.push(upload.unwrap().unwrap());
    }
    let keyring = Keyring::parse("k:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    for key in ["old", "new"] {
        let claim = Claim::insert(&mut conn, &keyring, client, key, b"").await;
        assert!(claim.unwrap().is_some());
    }
    let past = format!(
        "UPDATE whatsapp_outbox SET status = 'sent', settled_at = now() - interval '8 days'
         WHERE id = '{settled}';
         UPDATE whatsapp_uploads SET created_at = now() - interval '25 hours' WHERE id = '{}';
         UPDATE idempotency_keys SET claimed_until = now() - interval '25 hours' WHERE key = 'old'",
        uploads[0].id
    );
    conn.batch_execute(&past).await.unwrap();

    let running = world.dispatcher().await;
    eventually(SOON, async || {
        let gone = Request::find(&mut conn, client, "old").await;
        gone.unwrap().is_none()
    })
    .await;
    let failed = row(&mut conn, expired).await.unwrap();
    assert_eq!(
        (failed.status.as_str(), failed.error.as_deref()),
        ("failed", Some("expired"))
    );
    assert_eq!(row(&mut conn, waiting).await.unwrap().status, "queued");
    assert_eq!(row(&mut conn, settled).await, None);
    let gone = Upload::find(&mut conn, client, uploads[0].id).await;
    assert_eq!(gone.unwrap(), None);
    let kept = Request::find(&mut conn, client, "new").await;
    assert!(kept.unwrap().is_some());
    let kept = Upload::find(&mut conn, client, uploads[1].id).await;
    assert_eq!(kept.unwrap().as_ref(), Some(&uploads[1]));
    running.stop().await;
}
