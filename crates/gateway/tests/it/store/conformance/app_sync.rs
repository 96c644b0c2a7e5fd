use std::collections::HashMap;

use whatsapp_rust::wacore::appstate::hash::HashState;
use whatsapp_rust::wacore::appstate::processor::AppStateMutationMAC;
use whatsapp_rust::wacore::store::traits::{AppStateSyncKey, Backend};

super::over_both!(
    a_sync_key_comes_back_whole,
    the_latest_sync_key_is_the_one_stored_last,
    a_collections_version_comes_back_whole,
    macs_are_kept_per_collection_and_the_last_of_one_index_wins,
    macs_are_deleted_by_index_and_by_collection,
);

fn key(data: &[u8]) -> AppStateSyncKey {
    AppStateSyncKey {
        key_data: data.to_vec(),
        fingerprint: vec![0, 1, 255],
        timestamp: 1_764_000_000_123,
    }
}

fn mac(index: u8, value: u8) -> AppStateMutationMAC {
    AppStateMutationMAC {
        index_mac: vec![index; 32],
        value_mac: vec![value; 32],
    }
}

async fn a_sync_key_comes_back_whole(backend: &dyn Backend) {
    assert!(backend.get_sync_key(b"id").await.unwrap().is_none());
    backend.set_sync_key(b"id", key(b"old")).await.unwrap();
    backend.set_sync_key(b"id", key(b"new")).await.unwrap();
    let found = backend.get_sync_key(b"id").await.unwrap().unwrap();
    assert_eq!(found.key_data, b"new");
    assert_eq!(found.fingerprint, key(b"").fingerprint);
    assert_eq!(found.timestamp, key(b"").timestamp);
}

async fn the_latest_sync_key_is_the_one_stored_last(backend: &dyn Backend) {
    assert_eq!(backend.get_latest_sync_key_id().await.unwrap(), None);
    for id in [b"b", b"c", b"a"] {
        backend.set_sync_key(id, key(id)).await.unwrap();
    }
    let latest = backend.get_latest_sync_key_id().await.unwrap();
    assert_eq!(latest.as_deref(), Some(&b"a"[..]));
    backend.set_sync_key(b"b", key(b"b")).await.unwrap();
    let latest = backend.get_latest_sync_key_id().await.unwrap();
    assert_eq!(latest.as_deref(), Some(&b"b"[..]));
}

async fn a_collections_version_comes_back_whole(backend: &dyn Backend) {
    assert_eq!(backend.get_version("regular").await.unwrap().version, 0);
    let state = HashState {
        version: u64::MAX,
        hash: std::array::from_fn(|byte| byte as u8),
        index_value_map: HashMap::from([("index".to_owned(), vec![0, 255])]),
        mac_mismatch_fatal: true,
    };
    backend
        .set_version("regular", HashState::default())
        .await
        .unwrap();
    backend.set_version("regular", state.clone()).await.unwrap();
    let found = backend.get_version("regular").await.unwrap();
    assert_eq!(found.version, state.version);
    assert_eq!(found.hash, state.hash);
    assert_eq!(found.index_value_map, state.index_value_map);
    assert!(found.mac_mismatch_fatal);
    assert_eq!(backend.get_version("critical").await.unwrap().version, 0);
}

async fn macs_are_kept_per_collection_and_the_last_of_one_index_wins(backend: &dyn Backend) {
    backend
        .put_mutation_macs("a", 1, &[mac(1, 1), mac(2, 2), mac(1, 3)])
        .await
        .unwrap();
    backend
        .put_mutation_macs("b", 1, &[mac(1, 4)])
        .await
        .unwrap();
    backend.put_mutation_macs("a", 2, &[]).await.unwrap();
    let one = backend.get_mutation_mac("a", &[1; 32]).await.unwrap();
    assert_eq!(one, Some(vec![3; 32]));
    let found = backend
        .get_mutation_macs("a", &[[1; 32], [2; 32], [9; 32]])
        .await
        .unwrap();
    let expected = HashMap::from([([1; 32], vec![3; 32]), ([2; 32], vec![2; 32])]);
    assert_eq!(found, expected);
    assert_eq!(
        backend.get_mutation_macs("a", &[]).await.unwrap(),
        HashMap::new()
    );
}

async fn macs_are_deleted_by_index_and_by_collection(backend: &dyn Backend) {
    for collection in ["a", "b"] {
        backend
            .put_mutation_macs(collection, 1, &[mac(1, 1), mac(2, 2)])
            .await
            .unwrap();
    }
    backend
        .delete_mutation_macs("a", &[vec![1; 32], vec![9; 32]])
        .await
        .unwrap();
    assert_eq!(backend.get_mutation_mac("a", &[1; 32]).await.unwrap(), None);
    assert!(
        backend
            .get_mutation_mac("a", &[2; 32])
            .await
            .unwrap()
            .is_some()
    );
    backend.clear_mutation_macs("b").await.unwrap();
    let left = backend
        .get_mutation_macs("b", &[[1; 32], [2; 32]])
        .await
        .unwrap();
    assert!(left.is_empty());
    assert!(
        backend
            .get_mutation_mac("a", &[2; 32])
            .await
            .unwrap()
            .is_some()
    );
}
