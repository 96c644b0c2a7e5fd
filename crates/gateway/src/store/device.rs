//! The device itself: its keys and what it registered with.
//!
//! Kept as one sealed JSON document in the library's own serde form, which names every field and fills in
//! what an older document lacks. The library leaves `device_props` out of it, yet a device that is not
//! paired yet registers with them: they stand beside it.

use std::sync::Arc;

use diesel::prelude::*;
use diesel::sql_types::{Binary, Integer};
use diesel_async::RunQueryDsl;
use domain::sealed::DEVICE;
use domain::statement::Statement;
use serde::{Deserialize, Serialize};
use whatsapp_rust::async_trait;
use whatsapp_rust::buffa::Message;
use whatsapp_rust::wacore::stats::StorageResourceReport;
use whatsapp_rust::wacore::store::Device;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::DeviceStore;
use whatsapp_rust::waproto::whatsapp::DeviceProps;

use super::Store;
use super::patience::Patience;
use super::schema::protocol_devices as devices;

const VERSION: u32 = 1;

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    device: &'a Device,
    device_props: Vec<u8>,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Read {
    device: Device,
    device_props: Vec<u8>,
}

#[async_trait]
impl DeviceStore for Store {
    /// Waits for PostgreSQL: the library stops saving after ten failures.
    ///
    /// One at a time, in the order in which it is asked for: the library saves from two tasks at once, and of two
    /// connections the one with the older device may be the slower. What is forgotten so is done once more: one-time
    /// prekeys of which some were used up are uploaded. (Between its copy of the device and this call the library
    /// can still be overtaken: for some nanoseconds, and not for as long as PostgreSQL takes.)
    async fn save(&self, device: &Device) -> Result<()> {
        let _turn = self.saving.lock().await;
        let sealed = self.sealed_device(device)?;
        let rows = self
            .write("save_device", Patience::Outage, async |conn| {
                Statement::new(
                    "UPDATE protocol_devices SET data = ?, updated_at = now() WHERE device_id = ?",
                )
                .bind::<Binary, _>(&sealed)
                .bind::<Integer, _>(self.fenced())
                .execute(conn)
                .await
            })
            .await?;
        match rows {
            0 => Err(StoreError::DeviceNotFound(self.device_id)),
            _ => Ok(()),
        }
    }

    async fn load(&self) -> Result<Option<Device>> {
        match self.device_data().await?.flatten() {
            Some(sealed) => {
                let json = self.open(DEVICE, "", &sealed)?;
                parse(&json).map(Some)
            }
            None => Ok(None),
        }
    }

    async fn exists(&self) -> Result<bool> {
        Ok(self.device_data().await?.flatten().is_some())
    }

    /// Makes the device's keys, once. The row itself is there since the store was opened.
    async fn create(&self) -> Result<i32> {
        let sealed = self.sealed_device(&Device::new())?;
        self.write("create_device", Patience::Outage, async |conn| {
            Statement::new(
                "UPDATE protocol_devices SET data = ?, updated_at = now()
                 WHERE device_id = ? AND data IS NULL",
            )
            .bind::<Binary, _>(&sealed)
            .bind::<Integer, _>(self.fenced())
            .execute(conn)
            .await
        })
        .await?;
        match self.device_data().await? {
            Some(_) => Ok(self.device_id),
            None => Err(StoreError::DeviceNotFound(self.device_id)),
        }
    }

    async fn resource_report(&self) -> StorageResourceReport {
        StorageResourceReport {
            memory_bytes: Some(0),
            ..StorageResourceReport::default()
        }
    }
}

impl Store {
    async fn device_data(&self) -> Result<Option<Option<Vec<u8>>>> {
        self.read("load_device", Patience::Outage, async |conn| {
            devices::table
                .find(self.device_id)
                .select(devices::data)
                .first(conn)
                .await
                .optional()
        })
        .await
    }

    fn sealed_device(&self, device: &Device) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(&Written {
            version: VERSION,
            device,
            device_props: device.device_props.encode_to_vec(),
        })
        .map_err(|error| StoreError::Serialization(Box::new(error)))?;
        Ok(self.seal(DEVICE, "", &json))
    }
}

fn parse(json: &[u8]) -> Result<Device> {
    let broken = |error| StoreError::Serialization(Box::new(error));
    let Version { version } = serde_json::from_slice(json).map_err(broken)?;
    if version != VERSION {
        return Err(StoreError::Validation(format!(
            "a device of version {version}: this build reads version {VERSION}"
        )));
    }
    let Read {
        mut device,
        device_props,
    } = serde_json::from_slice(json).map_err(broken)?;
    let props = DeviceProps::decode_from_slice(&device_props)
        .map_err(|error| StoreError::Serialization(Box::new(error)))?;
    device.device_props = Arc::new(props);
    Ok(device)
}
