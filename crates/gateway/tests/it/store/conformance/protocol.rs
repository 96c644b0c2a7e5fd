use whatsapp_rust::wacore::store::traits::{
    Backend, DeviceListRecord, LidPnMappingEntry, PendingInboundKey, PendingInboundRow,
    TcTokenEntry,
};
use whatsapp_rust::wacore::time::now_secs;

use crate::store::contents::{GROUP, device_list, mapping, token};

super::over_both!(
    sender_key_status_is_kept_per_group_and_device,
    sender_key_status_is_cleared_by_group_by_device_and_whole,
    a_lid_is_found_by_itself_and_by_its_number,
    a_lid_that_moved_to_another_number_left_the_old_one,
    of_two_lids_of_one_number_the_newer_counts,
    a_batch_of_mappings_may_name_a_lid_twice,
    base_keys_are_compared_and_deleted,
    a_device_list_comes_back_whole,
    device_lists_are_updated_together_and_deleted,
    group_metadata_is_put_replaced_and_deleted,
    a_tc_token_comes_back_whole,
    our_own_issue_of_a_token_only_moves_forward,
    a_received_token_replaces_an_older_one_only,
    a_received_token_fills_a_placeholder_and_keeps_our_issue,
    tc_tokens_expire_when_both_sides_did,
    a_sent_message_is_taken_once,
    sent_messages_expire,
    a_pending_body_is_kept_until_it_is_deleted,
    pending_bodies_are_told_apart_by_chat_sender_and_id,
    a_batch_of_bodies_may_name_a_message_twice,
);

async fn status(backend: &dyn Backend, group: &str) -> Vec<(String, bool)> {
    let mut devices = backend.get_sender_key_devices(group).await.unwrap();
    devices.sort();
    devices
}

fn owned<const N: usize>(devices: [(&str, bool); N]) -> Vec<(String, bool)> {
    devices
        .map(|(device, has_key)| (device.to_owned(), has_key))
        .to_vec()
}

async fn sender_key_status_is_kept_per_group_and_device(backend: &dyn Backend) {
    assert!(status(backend, "g").await.is_empty());
    backend
        .set_sender_key_status("g", &[("a", true), ("b", true), ("b", false)])
        .await
        .unwrap();
    backend
        .set_sender_key_status("h", &[("a", true)])
        .await
        .unwrap();
    backend
        .set_sender_key_status("g", &[("a", false), ("c", true)])
        .await
        .unwrap();
    backend.set_sender_key_status("g", &[]).await.unwrap();
    assert_eq!(
        status(backend, "g").await,
        owned([("a", false), ("b", false), ("c", true)])
    );
    assert_eq!(status(backend, "h").await, owned([("a", true)]));
}

async fn sender_key_status_is_cleared_by_group_by_device_and_whole(backend: &dyn Backend) {
    for group in ["g", "h", "i"] {
        backend
            .set_sender_key_status(group, &[("a", true), ("b", true)])
            .await
            .unwrap();
    }
    backend.delete_sender_key_device_rows(&[]).await.unwrap();
    backend
        .delete_sender_key_device_rows(&["a", "z"])
        .await
        .unwrap();
    assert_eq!(status(backend, "g").await, owned([("b", true)]));
    backend.clear_sender_key_devices("g").await.unwrap();
    assert!(status(backend, "g").await.is_empty());
    assert_eq!(status(backend, "h").await, owned([("b", true)]));
    backend.clear_all_sender_key_devices().await.unwrap();
    assert!(status(backend, "h").await.is_empty());
    assert!(status(backend, "i").await.is_empty());
}

fn learnt(lid: &str, phone: &str, updated_at: i64) -> LidPnMappingEntry {
    LidPnMappingEntry {
        lid: lid.to_owned(),
        phone_number: phone.to_owned(),
        updated_at,
        ..mapping()
    }
}

async fn lid_of(backend: &dyn Backend, phone: &str) -> Option<String> {
    backend
        .get_pn_mapping(phone)
        .await
        .unwrap()
        .map(|entry| entry.lid)
}

async fn a_lid_is_found_by_itself_and_by_its_number(backend: &dyn Backend) {
    assert!(backend.get_lid_mapping("100").await.unwrap().is_none());
    backend.put_lid_mapping(&mapping()).await.unwrap();
    let found = backend.get_lid_mapping("100").await.unwrap().unwrap();
    let json = |entry: &LidPnMappingEntry| serde_json::to_value(entry).unwrap();
    assert_eq!(json(&found), json(&mapping()));
    let by_number = backend.get_pn_mapping(&mapping().phone_number).await;
    assert_eq!(json(&by_number.unwrap().unwrap()), json(&mapping()));
    let all = backend.get_all_lid_mappings().await.unwrap();
    assert_eq!(all.iter().map(json).collect::<Vec<_>>(), [json(&mapping())]);
}

async fn a_lid_that_moved_to_another_number_left_the_old_one(backend: &dyn Backend) {
    backend
        .put_lid_mapping(&learnt("1", "old", 1))
        .await
        .unwrap();
    backend
        .put_lid_mapping(&learnt("1", "new", 2))
        .await
        .unwrap();
    assert_eq!(lid_of(backend, "old").await, None);
    assert_eq!(lid_of(backend, "new").await.as_deref(), Some("1"));
    assert_eq!(backend.get_all_lid_mappings().await.unwrap().len(), 1);
}

async fn of_two_lids_of_one_number_the_newer_counts(backend: &dyn Backend) {
    backend.put_lid_mapping(&learnt("9", "p", 1)).await.unwrap();
    backend.put_lid_mapping(&learnt("1", "p", 2)).await.unwrap();
    assert_eq!(lid_of(backend, "p").await.as_deref(), Some("1"));
    // Within one second the later call counts.
    backend.put_lid_mapping(&learnt("9", "p", 2)).await.unwrap();
    assert_eq!(lid_of(backend, "p").await.as_deref(), Some("9"));
}

async fn a_batch_of_mappings_may_name_a_lid_twice(backend: &dyn Backend) {
    let batch = [
        learnt("1", "first", 1),
        learnt("2", "other", 1),
        learnt("1", "last", 2),
    ];
    backend.put_lid_mappings(&batch).await.unwrap();
    backend.put_lid_mappings(&[]).await.unwrap();
    let found = backend.get_lid_mapping("1").await.unwrap().unwrap();
    assert_eq!(found.phone_number, "last");
    assert_eq!(backend.get_all_lid_mappings().await.unwrap().len(), 2);
}

async fn base_keys_are_compared_and_deleted(backend: &dyn Backend) {
    let same = async |key: &'static [u8]| backend.has_same_base_key("a", "m", key).await.unwrap();
    assert!(!same(b"key").await);
    backend.save_base_key("a", "m", b"old").await.unwrap();
    backend.save_base_key("a", "m", b"key").await.unwrap();
    assert!(same(b"key").await);
    assert!(!same(b"old").await);
    assert!(!backend.has_same_base_key("a", "n", b"key").await.unwrap());
    backend.delete_base_key("a", "m").await.unwrap();
    assert!(!same(b"key").await);
}

async fn a_device_list_comes_back_whole(backend: &dyn Backend) {
    assert!(backend.get_devices("100").await.unwrap().is_none());
    backend.update_device_list(device_list()).await.unwrap();
    let found = backend.get_devices("100").await.unwrap().unwrap();
    assert_eq!(
        serde_json::to_value(found).unwrap(),
        serde_json::to_value(device_list()).unwrap()
    );
}

async fn device_lists_are_updated_together_and_deleted(backend: &dyn Backend) {
    let list = |user: &str, timestamp| DeviceListRecord {
        user: user.to_owned(),
        timestamp,
        ..device_list()
    };
    backend.update_device_lists(vec![]).await.unwrap();
    backend
        .update_device_lists(vec![list("a", 1), list("b", 2), list("a", 3)])
        .await
        .unwrap();
    assert_eq!(
        backend.get_devices("a").await.unwrap().unwrap().timestamp,
        3
    );
    backend.delete_devices("a").await.unwrap();
    assert!(backend.get_devices("a").await.unwrap().is_none());
    assert!(backend.get_devices("b").await.unwrap().is_some());
}

async fn group_metadata_is_put_replaced_and_deleted(backend: &dyn Backend) {
    assert_eq!(backend.get_group_metadata(GROUP).await.unwrap(), None);
    backend.put_group_metadata(GROUP, b"one").await.unwrap();
    backend.put_group_metadata(GROUP, b"two").await.unwrap();
    let found = backend.get_group_metadata(GROUP).await.unwrap();
    assert_eq!(found.as_deref(), Some(&b"two"[..]));
    backend.delete_group_metadata(GROUP).await.unwrap();
    assert_eq!(backend.get_group_metadata(GROUP).await.unwrap(), None);
}

/// Token, its time, the time of our own issue.
async fn tc(backend: &dyn Backend) -> (Vec<u8>, i64, Option<i64>) {
    let entry = backend.get_tc_token("j").await.unwrap().unwrap();
    (entry.token, entry.token_timestamp, entry.sender_timestamp)
}

async fn a_tc_token_comes_back_whole(backend: &dyn Backend) {
    assert!(backend.get_tc_token("j").await.unwrap().is_none());
    backend.put_tc_token("j", &token()).await.unwrap();
    assert_eq!(tc(backend).await, (token().token, 5, Some(6)));
    let bare = TcTokenEntry {
        token: b"new".to_vec(),
        token_timestamp: 1,
        sender_timestamp: None,
    };
    backend.put_tc_token("j", &bare).await.unwrap();
    backend.put_tc_token("k", &bare).await.unwrap();
    assert_eq!(tc(backend).await, (b"new".to_vec(), 1, None));
    let mut jids = backend.get_all_tc_token_jids().await.unwrap();
    jids.sort();
    assert_eq!(jids, ["j", "k"]);
    backend.delete_tc_token("j").await.unwrap();
    assert!(backend.get_tc_token("j").await.unwrap().is_none());
}

async fn our_own_issue_of_a_token_only_moves_forward(backend: &dyn Backend) {
    let touch = async |at| {
        backend
            .touch_tc_token_sender_timestamp("j", at)
            .await
            .unwrap();
    };
    touch(5).await;
    assert_eq!(tc(backend).await, (vec![], 5, Some(5)));
    touch(3).await;
    assert_eq!(tc(backend).await, (vec![], 5, Some(5)));
    let bare = TcTokenEntry {
        sender_timestamp: None,
        ..token()
    };
    backend.put_tc_token("j", &bare).await.unwrap();
    touch(9).await;
    assert_eq!(tc(backend).await, (token().token, 5, Some(9)));
}

async fn a_received_token_replaces_an_older_one_only(backend: &dyn Backend) {
    let receive = async |token: &'static [u8], at| {
        backend
            .store_received_tc_token("j", token, at)
            .await
            .unwrap();
    };
    receive(b"one", 5).await;
    assert_eq!(tc(backend).await, (b"one".to_vec(), 5, None));
    receive(b"stale", 4).await;
    assert_eq!(tc(backend).await, (b"one".to_vec(), 5, None));
    receive(b"same second", 5).await;
    assert_eq!(tc(backend).await, (b"same second".to_vec(), 5, None));
}

async fn a_received_token_fills_a_placeholder_and_keeps_our_issue(backend: &dyn Backend) {
    backend
        .touch_tc_token_sender_timestamp("j", 9)
        .await
        .unwrap();
    backend
        .store_received_tc_token("j", b"token", 5)
        .await
        .unwrap();
    assert_eq!(tc(backend).await, (b"token".to_vec(), 5, Some(9)));
}

async fn tc_tokens_expire_when_both_sides_did(backend: &dyn Backend) {
    let cases: [(&str, &[u8], i64, Option<i64>); 6] = [
        ("both live", b"t", 10, Some(10)),
        ("token live", b"t", 10, None),
        ("issue live", b"t", 9, Some(10)),
        ("placeholder live", b"", 9, Some(10)),
        ("both stale", b"t", 9, Some(9)),
        ("nothing", b"", 99, None),
    ];
    for (jid, token, token_timestamp, sender_timestamp) in cases {
        let entry = TcTokenEntry {
            token: token.to_vec(),
            token_timestamp,
            sender_timestamp,
        };
        backend.put_tc_token(jid, &entry).await.unwrap();
    }
    assert_eq!(backend.delete_expired_tc_tokens(10, 10).await.unwrap(), 2);
    let mut left = backend.get_all_tc_token_jids().await.unwrap();
    left.sort();
    let live = ["both live", "issue live", "placeholder live", "token live"];
    assert_eq!(left, live);
}

async fn a_sent_message_is_taken_once(backend: &dyn Backend) {
    backend.store_sent_message("c", "m", b"one").await.unwrap();
    backend.store_sent_message("c", "m", b"two").await.unwrap();
    backend
        .store_sent_message("d", "m", b"other")
        .await
        .unwrap();
    let takes = (0..8).map(|_| backend.take_sent_message("c", "m"));
    let taken: Vec<Vec<u8>> = futures_util::future::try_join_all(takes)
        .await
        .unwrap()
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(taken, [b"two".to_vec()]);
    let other = backend.take_sent_message("d", "m").await.unwrap();
    assert_eq!(other.as_deref(), Some(&b"other"[..]));
}

async fn sent_messages_expire(backend: &dyn Backend) {
    backend.store_sent_message("c", "m", b"one").await.unwrap();
    let now = now_secs();
    assert_eq!(
        backend
            .delete_expired_sent_messages(now - 60)
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        backend
            .delete_expired_sent_messages(now + 60)
            .await
            .unwrap(),
        1
    );
    assert_eq!(backend.take_sent_message("c", "m").await.unwrap(), None);
}

async fn body(backend: &dyn Backend, key: (&str, &str, &str)) -> Option<Vec<u8>> {
    let (chat, sender, id) = key;
    backend.get_pending_inbound(chat, sender, id).await.unwrap()
}

async fn a_pending_body_is_kept_until_it_is_deleted(backend: &dyn Backend) {
    let key = ("c", "s", "m");
    backend
        .store_pending_inbound("c", "s", "m", b"old")
        .await
        .unwrap();
    backend
        .store_pending_inbound("c", "s", "m", b"body")
        .await
        .unwrap();
    assert_eq!(body(backend, key).await.as_deref(), Some(&b"body"[..]));
    assert_eq!(body(backend, key).await.as_deref(), Some(&b"body"[..]));
    backend.delete_pending_inbound("c", "s", "m").await.unwrap();
    backend.delete_pending_inbound("c", "s", "m").await.unwrap();
    assert_eq!(body(backend, key).await, None);
}

async fn pending_bodies_are_told_apart_by_chat_sender_and_id(backend: &dyn Backend) {
    let keys = [
        ("c", "s", "m"),
        ("d", "s", "m"),
        ("c", "t", "m"),
        ("c", "s", "n"),
    ];
    let bodies: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
    let rows: Vec<PendingInboundRow<'_>> = keys
        .iter()
        .zip(&bodies)
        .map(|(&(chat, sender, id), body)| PendingInboundRow {
            chat,
            sender,
            id,
            message: body.as_bytes(),
        })
        .collect();
    backend.store_pending_inbound_batch(&[]).await.unwrap();
    backend.store_pending_inbound_batch(&rows).await.unwrap();
    for (key, expected) in keys.into_iter().zip(&bodies) {
        assert_eq!(
            body(backend, key).await.as_deref(),
            Some(expected.as_bytes())
        );
    }
    let deleted = keys[..2]
        .iter()
        .map(|&(chat, sender, id)| PendingInboundKey { chat, sender, id });
    let deleted: Vec<_> = deleted.collect();
    backend.delete_pending_inbound_batch(&[]).await.unwrap();
    backend
        .delete_pending_inbound_batch(&deleted)
        .await
        .unwrap();
    assert_eq!(body(backend, keys[0]).await, None);
    assert_eq!(body(backend, keys[1]).await, None);
    assert!(body(backend, keys[2]).await.is_some());
    assert!(body(backend, keys[3]).await.is_some());
}

async fn a_batch_of_bodies_may_name_a_message_twice(backend: &dyn Backend) {
    let row = |message| PendingInboundRow {
        chat: "c",
        sender: "s",
        id: "m",
        message,
    };
    backend
        .store_pending_inbound_batch(&[row(b"first"), row(b"last")])
        .await
        .unwrap();
    assert_eq!(
        body(backend, ("c", "s", "m")).await.as_deref(),
        Some(&b"last"[..])
    );
}
