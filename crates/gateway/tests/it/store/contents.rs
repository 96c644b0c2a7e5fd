//! Something in every table, with secrets that can be searched for.

use std::sync::Arc;

use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::wacore::appstate::hash::HashState;
use whatsapp_rust::wacore::appstate::processor::AppStateMutationMAC;
use whatsapp_rust::wacore::store::Device;
use whatsapp_rust::wacore::store::traits::{
    AppStateSyncKey, Backend, DeviceInfo, DeviceListRecord, LidPnMappingEntry, MsgSecretEntry,
    TcTokenEntry,
};

pub(super) const ADDRESS: &str = "5511777777777:3@s.whatsapp.net.0";
pub(super) const GROUP: &str = "120363021033254949@g.us";
pub(super) const PUBLIC: [u8; 32] = *b"public identity key of a contact";
pub(super) const MESSAGE_SECRET: [u8; 32] = *b"SECRET of one message, 32 bytes.";

const SESSION: &[u8] = b"SECRET session record";
const PREKEY: &[u8] = b"SECRET prekey record";
const SIGNED: &[u8] = b"SECRET signed prekey record";
const SENDER: &[u8] = b"SECRET sender key record";
const SYNC: &[u8] = b"SECRET app state key";
const TOKEN: &[u8] = b"SECRET tc token";
const BODY: &[u8] = b"SECRET body with its keys";

/// What must not be readable in the database.
pub(super) const SECRETS: [&[u8]; 8] = [
    SESSION,
    PREKEY,
    SIGNED,
    SENDER,
    SYNC,
    TOKEN,
    BODY,
    &MESSAGE_SECRET,
];

/// Writes to every table; returns the device that was saved.
pub(super) async fn fill(backend: &dyn Backend) -> Device {
    backend.create().await.unwrap();
    let device = backend.load().await.unwrap().unwrap();
    backend.put_identity(ADDRESS, PUBLIC).await.unwrap();
    backend.put_session(ADDRESS, SESSION).await.unwrap();
    backend.store_prekey(7, PREKEY, false).await.unwrap();
    backend.store_signed_prekey(1, SIGNED).await.unwrap();
    backend.put_sender_key(ADDRESS, SENDER).await.unwrap();
    let key = AppStateSyncKey {
        key_data: SYNC.to_vec(),
        fingerprint: vec![1, 2],
        timestamp: 3,
    };
    backend.set_sync_key(b"key id", key).await.unwrap();
    let state = HashState {
        version: 9,
        ..HashState::default()
    };
    backend.set_version("regular", state).await.unwrap();
    let mac = AppStateMutationMAC {
        index_mac: vec![1; 32],
        value_mac: vec![2; 32],
    };
    backend
        .put_mutation_macs("regular", 9, &[mac])
        .await
        .unwrap();
    backend
        .set_sender_key_status(GROUP, &[(ADDRESS, true)])
        .await
        .unwrap();
    backend.put_lid_mapping(&mapping()).await.unwrap();
    backend.save_base_key(ADDRESS, "M1", &PUBLIC).await.unwrap();
    backend.update_device_list(device_list()).await.unwrap();
    backend.put_group_metadata(GROUP, b"group").await.unwrap();
    backend.put_tc_token("1@lid", &token()).await.unwrap();
    backend.store_sent_message(GROUP, "M2", BODY).await.unwrap();
    backend
        .store_pending_inbound(GROUP, "1@lid", "M3", BODY)
        .await
        .unwrap();
    let secret = MsgSecretEntry {
        chat: Arc::from(GROUP),
        sender: Arc::from("1@lid"),
        msg_id: Arc::from("M4"),
        secret: MESSAGE_SECRET,
        expires_at: 20,
        message_ts: 10,
    };
    backend.put_msg_secrets(vec![secret]).await.unwrap();
    device
}

/// Whether all that [`fill`] wrote is there.
pub(super) async fn assert_filled(backend: &dyn Backend, device: &Device) {
    assert_same_device(&backend.load().await.unwrap().unwrap(), device);
    assert_eq!(backend.load_identity(ADDRESS).await.unwrap(), Some(PUBLIC));
    let session = backend.get_session(ADDRESS).await.unwrap();
    assert_eq!(session.as_deref(), Some(SESSION));
    let prekeys = backend.load_prekeys_batch(&[7]).await.unwrap();
    assert_eq!(prekeys, [(7, Bytes::from_static(PREKEY))]);
    let signed = backend.load_all_signed_prekeys().await.unwrap();
    assert_eq!(signed, [(1, SIGNED.to_vec())]);
    let sender_key = backend.get_sender_key(ADDRESS).await.unwrap();
    assert_eq!(sender_key.as_deref(), Some(SENDER));
    let key = backend.get_sync_key(b"key id").await.unwrap().unwrap();
    assert_eq!(key.key_data, SYNC);
    assert_eq!((key.fingerprint, key.timestamp), (vec![1, 2], 3));
    let latest = backend.get_latest_sync_key_id().await.unwrap();
    assert_eq!(latest.as_deref(), Some(&b"key id"[..]));
    assert_eq!(backend.get_version("regular").await.unwrap().version, 9);
    let mac = backend.get_mutation_mac("regular", &[1; 32]).await.unwrap();
    assert_eq!(mac, Some(vec![2; 32]));
    let devices = backend.get_sender_key_devices(GROUP).await.unwrap();
    assert_eq!(devices, [(ADDRESS.to_owned(), true)]);
    let found = backend.get_lid_mapping("100").await.unwrap().unwrap();
    assert_eq!(found.phone_number, mapping().phone_number);
    assert!(
        backend
            .has_same_base_key(ADDRESS, "M1", &PUBLIC)
            .await
            .unwrap()
    );
    let list = backend.get_devices("100").await.unwrap().unwrap();
    assert_eq!(list.raw_id, device_list().raw_id);
    let group = backend.get_group_metadata(GROUP).await.unwrap();
    assert_eq!(group.as_deref(), Some(&b"group"[..]));
    let found = backend.get_tc_token("1@lid").await.unwrap().unwrap();
    assert_eq!(found.token, TOKEN);
    let body = backend
        .get_pending_inbound(GROUP, "1@lid", "M3")
        .await
        .unwrap();
    assert_eq!(body.as_deref(), Some(BODY));
    let secret = backend
        .get_msg_secret_with_ts(GROUP, "1@lid", "M4")
        .await
        .unwrap();
    assert_eq!(secret, Some((MESSAGE_SECRET.to_vec(), 10)));
    // Last: it takes what it finds.
    let sent = backend.take_sent_message(GROUP, "M2").await.unwrap();
    assert_eq!(sent.as_deref(), Some(BODY));
}

/// Every field that outlives the process, through the library's own serde form.
pub(super) fn assert_same_device(found: &Device, expected: &Device) {
    let json = |device: &Device| serde_json::to_value(device).unwrap();
    assert_eq!(json(found), json(expected));
    assert_eq!(found.device_props, expected.device_props);
}

pub(super) fn mapping() -> LidPnMappingEntry {
    LidPnMappingEntry {
        lid: "100".to_owned(),
        phone_number: "5511777777777".to_owned(),
        created_at: 1,
        updated_at: 2,
        learning_source: "usync".to_owned(),
    }
}

pub(super) fn device_list() -> DeviceListRecord {
    DeviceListRecord {
        user: "100".to_owned(),
        devices: vec![
            DeviceInfo::new(0, None),
            DeviceInfo::new(3, Some(2)).with_hosting(true),
        ],
        timestamp: 4,
        phash: Some("2:abc".to_owned()),
        raw_id: Some(u32::MAX),
    }
}

pub(super) fn token() -> TcTokenEntry {
    TcTokenEntry {
        token: TOKEN.to_vec(),
        token_timestamp: 5,
        sender_timestamp: Some(6),
    }
}
