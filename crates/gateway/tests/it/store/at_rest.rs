use domain::keyring::Keyring;
use domain::sealed::PLACES;
use whatsapp_rust::wacore::store::Device;
use whatsapp_rust::wacore::store::error::StoreError;
use whatsapp_rust::wacore::store::traits::{DeviceStore, MsgSecretStore, SignalStore};

use gateway::store::{Store, delete_device, find_device};

use super::contents::{PUBLIC, SECRETS, assert_filled, fill};
use super::world::{KEYS, World, unclaimed};

/// As it stands in a dump of a bytea column.
fn hex_of(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

#[tokio::test]
async fn no_secret_can_be_read_in_the_tables() {
    let world = World::new().await;
    let device = fill(&world.store().await).await;
    let dump = world.dump().await;
    let all: String = dump.values().cloned().collect();

    assert!(all.contains(&hex_of(&PUBLIC)), "public keys are plain");
    for secret in SECRETS {
        assert!(!all.contains(&hex_of(secret)));
        assert!(!all.contains(&*String::from_utf8_lossy(secret)));
    }
    for key in private_keys(&device) {
        assert!(!all.contains(&hex_of(&key)));
        // As JSON writes it.
        let numbers = serde_json::to_string(&key[..8]).unwrap();
        let numbers = numbers.trim_matches(['[', ']']).to_owned();
        assert!(!all.contains(&numbers));
        assert!(!all.contains(&hex_of(numbers.as_bytes())));
    }
    let empty: Vec<&String> = dump
        .iter()
        .filter(|(_, rows)| rows.is_empty())
        .map(|(table, _)| table)
        .collect();
    assert!(empty.is_empty(), "nothing was looked for in {empty:?}");
}

fn private_keys(device: &Device) -> Vec<Vec<u8>> {
    let pairs = [
        &device.noise_key,
        &device.identity_key,
        &device.signed_pre_key,
    ];
    pairs
        .map(|pair| pair.private_key.serialize().to_vec())
        .into_iter()
        .chain([device.adv_secret_key.to_vec()])
        .collect()
}

#[tokio::test]
async fn a_store_that_is_opened_again_finds_everything() {
    let world = World::new().await;
    let device = fill(&world.store().await).await;
    assert_filled(&world.store().await, &device).await;
}

#[tokio::test]
async fn of_saves_at_once_the_one_that_was_asked_for_last_is_kept() {
    let world = World::new().await;
    let store = world.store().await;
    store.create().await.unwrap();
    let device = store.load().await.unwrap().unwrap();
    let devices: Vec<Device> = (1..=50)
        .map(|next_pre_key_id| Device {
            next_pre_key_id,
            ..device.clone()
        })
        .collect();
    let saves = devices.iter().map(|device| store.save(device));
    for saved in futures_util::future::join_all(saves).await {
        saved.unwrap();
    }
    let kept = store.load().await.unwrap().unwrap();
    assert_eq!(kept.next_pre_key_id, 50);
}

#[tokio::test]
async fn all_that_is_sealed_opens_under_another_key_when_it_was_sealed_anew() {
    const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
    let world = World::new().await;
    let device = fill(&world.store().await).await;
    let keyring = Keyring::parse(&format!("{NEW},{KEYS}")).unwrap();
    let mut conn = world.database.connect().await;
    for place in PLACES {
        let rotated = place.rotate(&mut conn, &keyring).await.unwrap();
        assert_eq!(
            (rotated.left, rotated.failures.len()),
            (0, 0),
            "{rotated:?}"
        );
        // Every column that the store seals is filled.
        if place.table().starts_with("protocol_") {
            assert!(rotated.count > 0, "{rotated:?}");
        }
    }
    assert_filled(&world.store_under(NEW).await, &device).await;
}

#[tokio::test]
async fn two_devices_never_see_each_others_rows() {
    let world = World::new().await;
    let other_connection = world.another_connection().await;
    let (store, other) = (world.store().await, world.store_of(other_connection).await);
    assert_ne!(store.device_id(), other.device_id());

    let device = fill(&store).await;
    assert!(other.load().await.unwrap().is_none());
    let device_of_other = fill(&other).await;
    delete_device(
        &mut world.database.connect().await,
        unclaimed(other_connection),
    )
    .await
    .unwrap();
    assert_ne!(device.registration_id, device_of_other.registration_id);
    assert_filled(&store, &device).await;
}

#[tokio::test]
async fn another_devices_rows_do_not_open_under_ones_own_name() {
    let world = World::new().await;
    let other_connection = world.another_connection().await;
    let (store, other) = (world.store().await, world.store_of(other_connection).await);
    other.put_session("a", b"session").await.unwrap();
    let moved = format!(
        "UPDATE protocol_sessions SET device_id = {} WHERE device_id = {}",
        store.device_id(),
        other.device_id()
    );
    let mut conn = world.database.connect().await;
    diesel_async::RunQueryDsl::execute(diesel::sql_query(moved), &mut conn)
        .await
        .unwrap();
    let opened = store.get_session("a").await;
    assert!(
        matches!(opened, Err(StoreError::Serialization(_))),
        "{opened:?}"
    );
}

#[tokio::test]
async fn deleting_the_device_deletes_every_key() {
    let world = World::new().await;
    let store = world.store().await;
    let device = fill(&store).await;
    let mut conn = world.database.connect().await;
    delete_device(&mut conn, unclaimed(world.connection_id))
        .await
        .unwrap();
    assert_eq!(
        find_device(&mut conn, world.connection_id).await.unwrap(),
        None
    );
    for (table, rows) in world.dump().await {
        assert_eq!(rows, "", "{table}");
    }
    assert_gone(&store, &device).await;
}

/// A session that is still running over a deleted device cannot write it back.
async fn assert_gone(store: &Store, device: &Device) {
    let id = store.device_id();
    let gone = |error: StoreError| matches!(error, StoreError::DeviceNotFound(gone) if gone == id);
    assert!(gone(store.save(device).await.unwrap_err()));
    assert!(gone(store.create().await.unwrap_err()));
    assert!(gone(store.put_session("a", b"s").await.unwrap_err()));
    let secret = store.put_msg_secret("c", "s", "m", &[1; 32]).await;
    assert!(gone(secret.unwrap_err()));
}

#[tokio::test]
async fn a_connection_has_one_device_and_a_new_one_after_its_deletion() {
    let world = World::new().await;
    let first = world.store().await;
    assert_eq!(world.store().await.device_id(), first.device_id());
    let mut conn = world.database.connect().await;
    delete_device(&mut conn, unclaimed(world.connection_id))
        .await
        .unwrap();
    let second = world.store().await;
    assert_ne!(second.device_id(), first.device_id());
    assert!(second.load().await.unwrap().is_none());
}
