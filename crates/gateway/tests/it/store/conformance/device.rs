use std::sync::Arc;

use whatsapp_rust::wacore::store::traits::Backend;
use whatsapp_rust::wacore::store::{
    CachedNoiseCert, CachedServerCertChain, Device, DevicePropsOverride,
};
use whatsapp_rust::waproto::whatsapp::ADVSignedDeviceIdentity;

use crate::store::contents::assert_same_device;

super::over_both!(
    a_device_exists_once_it_was_created,
    creating_a_device_again_keeps_its_keys,
    every_field_of_a_device_comes_back,
);

async fn a_device_exists_once_it_was_created(backend: &dyn Backend) {
    assert!(!backend.exists().await.unwrap());
    assert!(backend.load().await.unwrap().is_none());
    backend.create().await.unwrap();
    assert!(backend.exists().await.unwrap());
    assert!(backend.load().await.unwrap().is_some());
}

async fn creating_a_device_again_keeps_its_keys(backend: &dyn Backend) {
    backend.create().await.unwrap();
    let first = backend.load().await.unwrap().unwrap();
    backend.create().await.unwrap();
    assert_same_device(&backend.load().await.unwrap().unwrap(), &first);
}

async fn every_field_of_a_device_comes_back(backend: &dyn Backend) {
    backend.create().await.unwrap();
    let device = paired();
    backend.save(&device).await.unwrap();
    assert_same_device(&backend.load().await.unwrap().unwrap(), &device);
}

/// A device whose every lasting field differs from a new one's.
fn paired() -> Device {
    let certificate = |byte| CachedNoiseCert {
        key: [byte; 32],
        not_before: 1,
        not_after: 2,
    };
    let mut device = Device::new();
    device.pn = Some("5511999999999:3@s.whatsapp.net".parse().unwrap());
    device.lid = Some("100000012345678:3@lid".parse().unwrap());
    device.signed_pre_key_id = 9;
    device.account = Some(Arc::new(ADVSignedDeviceIdentity {
        details: Some(b"details".to_vec()),
        account_signature_key: Some(vec![1; 32]),
        account_signature: Some(vec![2; 64]),
        device_signature: Some(vec![3; 64]),
    }));
    device.push_name = "Zé \u{1f980} \0".to_owned();
    device.app_version_primary = 3;
    device.app_version_secondary = 4;
    device.app_version_tertiary = u32::MAX;
    device.app_version_last_fetched_ms = i64::MAX;
    device.edge_routing_info = Some(vec![0, 255]);
    device.props_hash = Some("hash".to_owned());
    device.next_pre_key_id = 813;
    device.first_unupload_pre_key_id = 813;
    device.server_has_prekeys = true;
    device.nct_salt = Some(vec![9; 16]);
    device.server_cert_chain = Some(CachedServerCertChain {
        intermediate: certificate(1),
        leaf: certificate(2),
    });
    device.login_counter = 7;
    device.lid_migrated = true;
    device.last_signed_pre_key_rotation_ms = 1;
    device.read_receipts_disabled = true;
    device.set_device_props(DevicePropsOverride::new().with_os("Recado"));
    device
}
