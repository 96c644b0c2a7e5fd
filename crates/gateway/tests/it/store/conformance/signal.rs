use std::sync::Arc;

use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::wacore::store::traits::Backend;

super::over_both!(
    identities_are_put_replaced_and_deleted,
    a_batch_of_identities_may_name_one_twice,
    sessions_are_put_replaced_and_deleted,
    a_batch_of_sessions_may_name_one_twice,
    a_users_signal_state_is_found_over_all_devices_and_in_both_tables,
    all_812_prekeys_of_an_upload_come_back,
    a_batch_of_prekeys_may_name_one_twice,
    marking_prekeys_uploaded_never_brings_one_back,
    the_highest_prekey_id_is_known,
    signed_prekeys_are_stored_listed_and_removed,
    sender_keys_are_put_replaced_and_deleted,
    empty_batches_are_fine,
);

fn rows<const N: usize>(rows: [(&str, &'static [u8]); N]) -> Vec<(Arc<str>, Bytes)> {
    rows.map(|(address, record)| (Arc::from(address), Bytes::from_static(record)))
        .to_vec()
}

async fn identities_are_put_replaced_and_deleted(backend: &dyn Backend) {
    assert_eq!(backend.load_identity("a").await.unwrap(), None);
    backend.put_identity("a", [1; 32]).await.unwrap();
    backend.put_identity("a", [2; 32]).await.unwrap();
    backend.put_identity("b", [3; 32]).await.unwrap();
    assert_eq!(backend.load_identity("a").await.unwrap(), Some([2; 32]));
    backend.delete_identity("a").await.unwrap();
    backend.delete_identity("a").await.unwrap();
    assert_eq!(backend.load_identity("a").await.unwrap(), None);
    assert_eq!(backend.load_identity("b").await.unwrap(), Some([3; 32]));
}

async fn a_batch_of_identities_may_name_one_twice(backend: &dyn Backend) {
    let batch = [("a", [1; 32]), ("b", [2; 32]), ("a", [3; 32])]
        .map(|(address, key)| (Arc::from(address), key));
    backend.put_identities_batch(&batch).await.unwrap();
    assert_eq!(backend.load_identity("a").await.unwrap(), Some([3; 32]));
    assert_eq!(backend.load_identity("b").await.unwrap(), Some([2; 32]));
}

async fn sessions_are_put_replaced_and_deleted(backend: &dyn Backend) {
    assert_eq!(backend.get_session("a").await.unwrap(), None);
    assert!(!backend.has_session("a").await.unwrap());
    backend.put_session("a", b"one").await.unwrap();
    backend.put_session("a", b"two").await.unwrap();
    assert!(backend.has_session("a").await.unwrap());
    let session = backend.get_session("a").await.unwrap();
    assert_eq!(session.as_deref(), Some(&b"two"[..]));
    backend.delete_session("a").await.unwrap();
    backend.delete_session("a").await.unwrap();
    assert_eq!(backend.get_session("a").await.unwrap(), None);
}

async fn a_batch_of_sessions_may_name_one_twice(backend: &dyn Backend) {
    backend.put_session("a", b"old").await.unwrap();
    let batch = rows([("b", b"b"), ("a", b"first"), ("a", b"last")]);
    backend.put_sessions_batch(&batch).await.unwrap();
    let session = backend.get_session("a").await.unwrap();
    assert_eq!(session.as_deref(), Some(&b"last"[..]));
    assert!(backend.has_session("b").await.unwrap());
}

async fn a_users_signal_state_is_found_over_all_devices_and_in_both_tables(backend: &dyn Backend) {
    backend
        .put_session("5511:3@s.whatsapp.net.0", b"s")
        .await
        .unwrap();
    backend.put_identity("77@lid.0", [1; 32]).await.unwrap();
    for user in ["5511", "77"] {
        assert!(backend.has_signal_state_for_user(user).await.unwrap());
    }
    // Neither the beginning of another's number, nor one that begins like it.
    for user in ["551", "55113", "7", "%", "", "5511:3@s.whatsapp.net.0"] {
        assert!(
            !backend.has_signal_state_for_user(user).await.unwrap(),
            "{user}"
        );
    }
}

async fn all_812_prekeys_of_an_upload_come_back(backend: &dyn Backend) {
    let keys: Vec<(u32, Bytes)> = (1..=812)
        .map(|id: u32| (id, Bytes::from(id.to_be_bytes().to_vec())))
        .collect();
    backend.store_prekeys_batch(&keys, false).await.unwrap();
    let ids: Vec<u32> = (1..=812).collect();
    let mut loaded = backend.load_prekeys_batch(&ids).await.unwrap();
    loaded.sort();
    assert_eq!(loaded, keys);
    backend.mark_prekeys_uploaded(&ids).await.unwrap();
    backend.remove_prekey(400).await.unwrap();
    assert_eq!(backend.load_prekey(400).await.unwrap(), None);
    let some = backend.load_prekeys_batch(&[400, 401, 5000]).await.unwrap();
    assert_eq!(some, [keys[400].clone()]);
}

async fn a_batch_of_prekeys_may_name_one_twice(backend: &dyn Backend) {
    let keys = [(1, "first"), (2, "other"), (1, "last")].map(|(id, key)| (id, Bytes::from(key)));
    backend.store_prekeys_batch(&keys, true).await.unwrap();
    let key = backend.load_prekey(1).await.unwrap();
    assert_eq!(key.as_deref(), Some(&b"last"[..]));
}

async fn marking_prekeys_uploaded_never_brings_one_back(backend: &dyn Backend) {
    backend.store_prekey(1, b"one", false).await.unwrap();
    backend.remove_prekey(1).await.unwrap();
    backend.mark_prekeys_uploaded(&[1, 2]).await.unwrap();
    assert!(
        backend
            .load_prekeys_batch(&[1, 2])
            .await
            .unwrap()
            .is_empty()
    );
}

async fn the_highest_prekey_id_is_known(backend: &dyn Backend) {
    assert_eq!(backend.get_max_prekey_id().await.unwrap(), 0);
    backend.store_prekey(5, b"five", false).await.unwrap();
    backend.store_prekey(u32::MAX, b"max", false).await.unwrap();
    assert_eq!(backend.get_max_prekey_id().await.unwrap(), u32::MAX);
    let key = backend.load_prekey(u32::MAX).await.unwrap();
    assert_eq!(key.as_deref(), Some(&b"max"[..]));
}

async fn signed_prekeys_are_stored_listed_and_removed(backend: &dyn Backend) {
    assert_eq!(backend.load_signed_prekey(1).await.unwrap(), None);
    backend.store_signed_prekey(1, b"one").await.unwrap();
    backend.store_signed_prekey(2, b"two").await.unwrap();
    backend.store_signed_prekey(1, b"again").await.unwrap();
    let key = backend.load_signed_prekey(1).await.unwrap();
    assert_eq!(key.as_deref(), Some(&b"again"[..]));
    let mut all = backend.load_all_signed_prekeys().await.unwrap();
    all.sort();
    assert_eq!(all, [(1, b"again".to_vec()), (2, b"two".to_vec())]);
    backend.remove_signed_prekey(1).await.unwrap();
    assert_eq!(backend.load_signed_prekey(1).await.unwrap(), None);
    assert_eq!(backend.load_all_signed_prekeys().await.unwrap().len(), 1);
}

async fn sender_keys_are_put_replaced_and_deleted(backend: &dyn Backend) {
    assert_eq!(backend.get_sender_key("g::a").await.unwrap(), None);
    backend.put_sender_key("g::a", b"one").await.unwrap();
    let batch = rows([("g::b", b"b"), ("g::a", b"first"), ("g::a", b"last")]);
    backend.put_sender_keys_batch(&batch).await.unwrap();
    let key = backend.get_sender_key("g::a").await.unwrap();
    assert_eq!(key.as_deref(), Some(&b"last"[..]));
    backend.delete_sender_key("g::a").await.unwrap();
    assert_eq!(backend.get_sender_key("g::a").await.unwrap(), None);
    assert!(backend.get_sender_key("g::b").await.unwrap().is_some());
}

async fn empty_batches_are_fine(backend: &dyn Backend) {
    backend.put_identities_batch(&[]).await.unwrap();
    backend.put_sessions_batch(&[]).await.unwrap();
    backend.put_sender_keys_batch(&[]).await.unwrap();
    backend.store_prekeys_batch(&[], true).await.unwrap();
    backend.mark_prekeys_uploaded(&[]).await.unwrap();
    assert!(backend.load_prekeys_batch(&[]).await.unwrap().is_empty());
}
