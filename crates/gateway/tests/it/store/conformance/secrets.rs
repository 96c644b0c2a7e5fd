use whatsapp_rust::wacore::store::traits::{Backend, MsgSecretEntry};

super::over_both!(
    a_secret_is_found_by_chat_sender_and_id,
    a_secret_stored_again_keeps_the_later_deadline_and_time,
    secrets_of_one_batch_merge_by_the_same_rules,
    secrets_expire_at_their_deadline_and_those_without_one_never,
);

fn entry(id: &str, secret: u8, expires_at: i64, message_ts: i64) -> MsgSecretEntry {
    MsgSecretEntry {
        chat: "c".into(),
        sender: "s".into(),
        msg_id: id.into(),
        secret: [secret; 32],
        expires_at,
        message_ts,
    }
}

async fn found(backend: &dyn Backend, id: &str) -> Option<(Vec<u8>, i64)> {
    backend.get_msg_secret_with_ts("c", "s", id).await.unwrap()
}

async fn a_secret_is_found_by_chat_sender_and_id(backend: &dyn Backend) {
    backend
        .put_msg_secret("c", "s", "m", &[7; 32])
        .await
        .unwrap();
    let secret = backend.get_msg_secret("c", "s", "m").await.unwrap();
    assert_eq!(secret, Some(vec![7; 32]));
    for (chat, sender, id) in [("d", "s", "m"), ("c", "t", "m"), ("c", "s", "n")] {
        let other = backend.get_msg_secret(chat, sender, id).await.unwrap();
        assert_eq!(other, None);
    }
    assert_eq!(found(backend, "m").await, Some((vec![7; 32], 0)));
    assert_eq!(backend.put_msg_secrets(vec![]).await.unwrap(), 0);
}

async fn a_secret_stored_again_keeps_the_later_deadline_and_time(backend: &dyn Backend) {
    for again in [
        entry("m", 1, 100, 50),
        entry("m", 2, 90, 0),
        entry("m", 3, 95, 40),
    ] {
        assert_eq!(backend.put_msg_secrets(vec![again]).await.unwrap(), 1);
    }
    assert_eq!(found(backend, "m").await, Some((vec![3; 32], 50)));
    assert_eq!(backend.delete_expired_msg_secrets(99).await.unwrap(), 0);
    assert_eq!(backend.delete_expired_msg_secrets(100).await.unwrap(), 1);
    // "Never" wins, whichever comes first.
    for batch in [[("n", 0), ("n", 10)], [("o", 10), ("o", 0)]] {
        for (id, expires_at) in batch {
            let again = entry(id, 1, expires_at, 0);
            backend.put_msg_secrets(vec![again]).await.unwrap();
        }
    }
    assert_eq!(
        backend.delete_expired_msg_secrets(i64::MAX).await.unwrap(),
        0
    );
}

async fn secrets_of_one_batch_merge_by_the_same_rules(backend: &dyn Backend) {
    let batch = vec![
        entry("m", 1, 100, 50),
        entry("n", 9, 10, 5),
        entry("m", 2, 90, 60),
    ];
    assert_eq!(backend.put_msg_secrets(batch).await.unwrap(), 3);
    assert_eq!(found(backend, "m").await, Some((vec![2; 32], 60)));
    assert_eq!(backend.delete_expired_msg_secrets(99).await.unwrap(), 1);
    assert!(found(backend, "m").await.is_some());
}

async fn secrets_expire_at_their_deadline_and_those_without_one_never(backend: &dyn Backend) {
    let batch = vec![
        entry("past", 1, 10, 0),
        entry("future", 2, 11, 0),
        entry("never", 3, 0, 0),
    ];
    backend.put_msg_secrets(batch).await.unwrap();
    assert_eq!(backend.delete_expired_msg_secrets(10).await.unwrap(), 1);
    assert_eq!(found(backend, "past").await, None);
    assert!(found(backend, "future").await.is_some());
    assert!(found(backend, "never").await.is_some());
}
