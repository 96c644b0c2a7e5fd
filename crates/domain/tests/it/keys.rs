//! Sealing anew under another key.

use chrono::Utc;
use diesel_async::SimpleAsyncConnection;
use domain::keyring::Keyring;
use domain::media::{Bytes32, File, Kind};
use domain::message::NewMessage;
use domain::sealed::rotation::{Rotated, Usage};
use domain::sealed::{
    MESSAGE_MEDIA, PLACES, WEBHOOK_HEADERS, WEBHOOK_PREVIOUS_SECRET, WEBHOOK_SECRET,
};
use domain::webhook::{
    Changes, Headers, Webhook, open_headers, open_secret, seal_headers, seal_secret,
};
use domain::{ids, inbox, partition};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::world::World;

const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

fn keyring(texts: &[&str]) -> Keyring {
    Keyring::parse(&texts.join(",")).unwrap()
}

/// Gives the world's webhook a secret, a previous one, and headers, sealed under the old key.
async fn seal_all(world: &World) {
    let (id, old) = (world.webhook.id, keyring(&[OLD]));
    let mut conn = world.conn().await;
    for secret in ["whsec_previous", "whsec_present"] {
        let sealed = seal_secret(&old, id, &secret.to_owned().into());
        Webhook::rotate_secret(&mut conn, world.client.id, id, &sealed, 3600)
            .await
            .unwrap();
    }
    let headers = Headers::from([("X-Token".to_owned(), "hunter2".to_owned())]);
    let changes = Changes {
        custom_headers: Some(Some(seal_headers(&old, id, &headers))),
        ..Changes::default()
    };
    Webhook::update(&mut conn, world.client.id, id, &changes)
        .await
        .unwrap();
}

async fn webhook(world: &World) -> Webhook {
    Webhook::find(&mut world.conn().await, world.client.id, world.webhook.id)
        .await
        .unwrap()
        .unwrap()
}

async fn rotate_all(world: &World, keyring: &Keyring) -> Vec<Rotated> {
    let mut conn = world.conn().await;
    let mut all = Vec::new();
    for place in PLACES {
        all.push(place.rotate(&mut conn, keyring).await.unwrap());
    }
    all
}

fn text(secret: SecretString) -> String {
    secret.expose_secret().to_owned()
}

#[tokio::test]
async fn a_webhooks_secrets_open_under_the_new_key_alone_and_nobody_notices() {
    let world = World::new().await;
    seal_all(&world).await;
    let before = webhook(&world).await;
    let both = keyring(&[NEW, OLD]);

    let counts: Vec<u64> = rotate_all(&world, &both)
        .await
        .iter()
        .map(|done| done.count)
        .collect();
    assert_eq!(counts[..3], [1, 1, 1]);
    assert!(counts[3..].iter().all(|count| *count == 0));

    let after = webhook(&world).await;
    let (id, new) = (after.id, keyring(&[NEW]));
    assert_eq!(
        text(open_secret(&new, id, &after.secret).unwrap()),
        "whsec_present"
    );
    let previous = after.previous_secret.unwrap();
    assert_eq!(
        text(open_secret(&new, id, &previous).unwrap()),
        "whsec_previous"
    );
    let headers = open_headers(&new, id, &after.custom_headers.unwrap()).unwrap();
    assert_eq!(headers["X-Token"], "hunter2");
    // Dispatchers need not load it anew: what they have still opens.
    assert_eq!(after.updated_at, before.updated_at);

    let again = rotate_all(&world, &both).await;
    assert!(
        again
            .iter()
            .all(|done| done.count == 0 && done.failures.is_empty())
    );
    assert_eq!(
        webhook(&world).await.secret,
        after.secret,
        "a second run does nothing"
    );
}

#[tokio::test]
async fn what_cannot_be_opened_is_named_and_stays_as_it_is() {
    let world = World::new().await;
    seal_all(&world).await;
    let mut conn = world.conn().await;
    let moved = "UPDATE whatsapp_webhooks SET custom_headers = secret";
    conn.batch_execute(moved).await.unwrap();
    let before = webhook(&world).await;

    let rotated = rotate_all(&world, &keyring(&[NEW])).await;
    for done in &rotated[..3] {
        assert_eq!((done.count, done.left, done.failures.len()), (0, 0, 1));
        assert_eq!(done.failures[0].row, before.id.to_string());
        assert!(done.failures[0].error.to_string().contains("\"old\""));
    }
    let rotated = rotate_all(&world, &keyring(&[NEW, OLD])).await;
    let counts: Vec<(u64, usize)> = rotated[..3]
        .iter()
        .map(|done| (done.count, done.failures.len()))
        .collect();
    assert_eq!(counts, [(1, 0), (1, 0), (0, 1)]);
    assert_eq!(webhook(&world).await.custom_headers, before.custom_headers);
}

#[tokio::test]
async fn what_is_written_meanwhile_is_not_overwritten_and_writers_are_not_waited_for() {
    let world = World::new().await;
    seal_all(&world).await;
    let both = keyring(&[NEW, OLD]);
    let (mut conn, mut writer) = (world.conn().await, world.conn().await);
    let changed = seal_secret(
        &keyring(&[OLD]),
        world.webhook.id,
        &"whsec_changed".to_owned().into(),
    );
    let hexes: String = changed.iter().map(|byte| format!("{byte:02x}")).collect();
    let change = format!("BEGIN; UPDATE whatsapp_webhooks SET secret = '\\x{hexes}'");
    writer.batch_execute(&change).await.unwrap();

    let held = WEBHOOK_SECRET.rotate(&mut conn, &both).await.unwrap();
    assert_eq!((held.count, held.left), (0, 1));
    writer.batch_execute("COMMIT").await.unwrap();
    let rotated = WEBHOOK_SECRET.rotate(&mut conn, &both).await.unwrap();
    assert_eq!((rotated.count, rotated.left), (1, 0));
    let after = webhook(&world).await;
    let secret = open_secret(&keyring(&[NEW]), after.id, &after.secret).unwrap();
    assert_eq!(text(secret), "whsec_changed");
}

#[tokio::test]
async fn a_table_of_many_blocks_is_sealed_anew_to_its_end_and_its_keys_can_be_counted() {
    let world = World::new().await;
    seal_all(&world).await;
    let old = keyring(&[OLD]);
    let mut conn = world.conn().await;
    let padding = "x".repeat(1000);
    let mut rows = Vec::new();
    for n in 0..1500 {
        let id = Uuid::now_v7();
        let secret = seal_secret(&old, id, &format!("whsec_{n}").into());
        let hexes: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        rows.push(format!(
            "('{id}', {}, '{n}', '{n}', '{padding}', '\\x{hexes}')",
            world.client.id
        ));
    }
    let many = format!(
        "INSERT INTO whatsapp_webhooks (id, client_id, phone_number, phone_key, webhook_url, secret)
         VALUES {}",
        rows.join(",")
    );
    conn.batch_execute(&many).await.unwrap();
    let usage = |key: &str, count| Usage {
        key: Some(key.to_owned()),
        count,
    };
    assert_eq!(
        WEBHOOK_SECRET.usage(&mut conn).await.unwrap(),
        [usage("old", 1501)]
    );

    let rotated = WEBHOOK_SECRET
        .rotate(&mut conn, &keyring(&[NEW, OLD]))
        .await
        .unwrap();
    assert_eq!((rotated.count, rotated.left), (1501, 0));
    assert_eq!(
        WEBHOOK_SECRET.usage(&mut conn).await.unwrap(),
        [usage("new", 1501)]
    );
    for place in [WEBHOOK_PREVIOUS_SECRET, WEBHOOK_HEADERS] {
        assert_eq!(place.usage(&mut conn).await.unwrap(), [usage("old", 1)]);
    }
    let mangled = "UPDATE whatsapp_webhooks SET custom_headers = '\\x00'";
    conn.batch_execute(mangled).await.unwrap();
    let unsealed = Usage {
        key: None,
        count: 1501,
    };
    assert_eq!(WEBHOOK_HEADERS.usage(&mut conn).await.unwrap(), [unsealed]);
}

#[tokio::test]
async fn what_opens_files_is_sealed_anew_in_every_partition() {
    let world = World::new().await;
    let old = keyring(&[OLD]);
    let mut conn = world.conn().await;
    partition::maintain(&mut conn, Utc::now(), None)
        .await
        .unwrap();
    // One of 1970, which falls into the default partition, and one of today.
    let today = NewMessage {
        id: ids::floor(Utc::now()),
        ..world.message("TODAY")
    };
    let rows = [world.message("DEFAULT"), today, world.message("TEXT")];
    for (mut row, has_file) in rows.clone().into_iter().zip([true, true, false]) {
        row.media = has_file.then(|| file().seal(&old, row.id));
        inbox::accept(&mut conn, &[&row]).await.unwrap();
    }

    let rotated = MESSAGE_MEDIA
        .rotate(&mut conn, &keyring(&[NEW, OLD]))
        .await
        .unwrap();
    assert_eq!((rotated.count, rotated.left), (2, 0));
    assert!(rotated.failures.is_empty());
    for row in &rows[..2] {
        let sealed = File::find_sealed(&mut conn, world.client.id, row.id).await;
        let opened = File::open(&keyring(&[NEW]), row.id, &sealed.unwrap().unwrap());
        assert_eq!(opened.unwrap(), file());
    }
    let other = File::find_sealed(&mut conn, world.client.id + 1, rows[0].id).await;
    assert_eq!(other.unwrap(), None, "another client's");
}

fn file() -> File {
    File {
        kind: Kind::Image,
        direct_path: "/v/t62".to_owned(),
        media_key: Bytes32([1; 32]),
        file_enc_sha256: Bytes32([2; 32]),
        file_sha256: Bytes32([3; 32]),
        size: 7,
        mimetype: None,
        file_name: None,
    }
}
