//! A store whose connection another gateway has claimed.

use std::time::Duration;

use gateway::store::delete_device;
use testkit::eventually;
use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::wacore::appstate::hash::HashState;
use whatsapp_rust::wacore::appstate::processor::AppStateMutationMAC;
use whatsapp_rust::wacore::store::Device;
use whatsapp_rust::wacore::store::traits::{
    AppStateSyncKey, AppSyncStore, DeviceStore, MsgSecretStore, ProtocolStore, SignalStore,
};

use super::contents::{ADDRESS, GROUP, PUBLIC, assert_filled, device_list, fill, mapping, token};
use super::world::{World, unclaimed};

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_store_that_lost_its_connection_changes_nothing_and_says_so() {
    let world = World::new().await;
    let stale = world.store().await;
    let device = fill(&stale).await;
    let owner = world.claimed_store().await;
    let before = world.dump().await;

    let key = AppStateSyncKey {
        key_data: vec![1],
        fingerprint: vec![1],
        timestamp: 1,
    };
    let mac = AppStateMutationMAC {
        index_mac: vec![3; 32],
        value_mac: vec![3; 32],
    };
    macro_rules! refused {
        ($($write:ident($($argument:expr),*);)*) => {
            $(assert!(stale.$write($($argument),*).await.is_err(), stringify!($write));)*
        };
    }
    refused! {
        put_identity(ADDRESS, [1; 32]);
        delete_identity(ADDRESS);
        put_session(ADDRESS, b"forked");
        delete_session(ADDRESS);
        store_prekey(8, b"forked", true);
        mark_prekeys_uploaded(&[7]);
        remove_prekey(7);
        store_signed_prekey(2, b"forked");
        remove_signed_prekey(1);
        put_sender_key(ADDRESS, b"forked");
        delete_sender_key(ADDRESS);
        set_sync_key(b"other", key);
        set_version("regular", HashState::default());
        put_mutation_macs("regular", 9, &[mac]);
        delete_mutation_macs("regular", &[vec![1; 32]]);
        clear_mutation_macs("regular");
        set_sender_key_status(GROUP, &[(ADDRESS, false)]);
        clear_sender_key_devices(GROUP);
        delete_sender_key_device_rows(&[ADDRESS]);
        clear_all_sender_key_devices();
        put_lid_mapping(&mapping());
        save_base_key(ADDRESS, "M1", &[1; 32]);
        delete_base_key(ADDRESS, "M1");
        update_device_list(device_list());
        delete_devices("100");
        put_group_metadata(GROUP, b"forked");
        delete_group_metadata(GROUP);
        put_tc_token("1@lid", &token());
        delete_tc_token("1@lid");
        delete_expired_tc_tokens(i64::MAX, i64::MAX);
        touch_tc_token_sender_timestamp("1@lid", 99);
        store_received_tc_token("1@lid", &PUBLIC, 99);
        store_sent_message(GROUP, "M9", b"forked");
        take_sent_message(GROUP, "M2");
        delete_expired_sent_messages(i64::from(u32::MAX));
        store_pending_inbound(GROUP, "1@lid", "M9", b"forked");
        delete_expired_pending_inbound(i64::from(u32::MAX));
        put_msg_secret(GROUP, "1@lid", "M9", &[1; 32]);
        delete_expired_msg_secrets(i64::from(u32::MAX));
        save(&Device::new());
    }
    // Nobody waits for this one.
    stale
        .delete_pending_inbound(GROUP, "1@lid", "M3")
        .await
        .unwrap();
    eventually(LIMIT, async || !world.inflight.is_busy_forgetting()).await;
    let mut conn = world.database.connect().await;
    let deleted = delete_device(&mut conn, unclaimed(world.connection_id)).await;
    assert!(deleted.is_err());
    assert_eq!(world.dump().await, before);

    assert_filled(&owner, &device).await;
    owner.put_session(ADDRESS, b"its own").await.unwrap();
    let session = owner.get_session(ADDRESS).await.unwrap();
    assert_eq!(session, Some(Bytes::from_static(b"its own")));
}
