//! The keys and versions of WhatsApp's app state.
//!
//! A key is shared once, and the message that brought it is acknowledged whatever became of it: storing
//! one waits for PostgreSQL.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Integer, Text};
use diesel_async::RunQueryDsl;
use domain::sealed::APP_STATE_KEY;
use domain::statement::Statement;
use whatsapp_rust::async_trait;
use whatsapp_rust::wacore::appstate::hash::HashState;
use whatsapp_rust::wacore::appstate::processor::AppStateMutationMAC;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::{AppStateSyncKey, AppSyncStore};

use super::Store;
use super::columns::last_by_key;
use super::patience::Patience;
use super::schema::{
    protocol_app_state_keys as keys, protocol_app_state_macs as macs,
    protocol_app_state_versions as versions,
};

#[async_trait]
impl AppSyncStore for Store {
    async fn get_sync_key(&self, key_id: &[u8]) -> Result<Option<AppStateSyncKey>> {
        let row: Option<(Vec<u8>, Vec<u8>, i64)> = self
            .read("get_sync_key", Patience::Brief, async |conn| {
                keys::table
                    .find((self.device_id, key_id))
                    .select((keys::key_data, keys::fingerprint, keys::timestamp))
                    .first(conn)
                    .await
                    .optional()
            })
            .await?;
        row.map(|(sealed, fingerprint, timestamp)| {
            Ok(AppStateSyncKey {
                key_data: self.open(APP_STATE_KEY, &hex::encode(key_id), &sealed)?,
                fingerprint,
                timestamp,
            })
        })
        .transpose()
    }

    async fn set_sync_key(&self, key_id: &[u8], key: AppStateSyncKey) -> Result<()> {
        let sealed = self.seal(APP_STATE_KEY, &hex::encode(key_id), &key.key_data);
        self.write("set_sync_key", Patience::Outage, async |conn| {
            Statement::new(
                r#"INSERT INTO protocol_app_state_keys
                       (device_id, key_id, key_data, fingerprint, "timestamp")
                   VALUES (?, ?, ?, ?, ?)
                   ON CONFLICT (device_id, key_id) DO UPDATE SET key_data = EXCLUDED.key_data,
                       fingerprint = EXCLUDED.fingerprint, "timestamp" = EXCLUDED."timestamp",
                       sequence = EXCLUDED.sequence"#,
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Binary, _>(key_id)
            .bind::<Binary, _>(&sealed)
            .bind::<Binary, _>(&key.fingerprint)
            .bind::<BigInt, _>(key.timestamp)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    async fn get_version(&self, name: &str) -> Result<HashState> {
        let state: Option<Vec<u8>> = self
            .read("get_version", Patience::Brief, async |conn| {
                versions::table
                    .find((self.device_id, name))
                    .select(versions::state)
                    .first(conn)
                    .await
                    .optional()
            })
            .await?;
        match state {
            Some(state) => serde_json::from_slice(&state).map_err(serialization),
            None => Ok(HashState::default()),
        }
    }

    async fn set_version(&self, name: &str, state: HashState) -> Result<()> {
        let state = serde_json::to_vec(&state).map_err(serialization)?;
        self.write("set_version", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_app_state_versions (device_id, collection, state)
                 VALUES (?, ?, ?)
                 ON CONFLICT (device_id, collection) DO UPDATE SET state = EXCLUDED.state",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Text, _>(name)
            .bind::<Binary, _>(&state)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    async fn put_mutation_macs(
        &self,
        name: &str,
        _version: u64,
        mutations: &[AppStateMutationMAC],
    ) -> Result<()> {
        let (index_macs, value_macs) = last_by_key(
            mutations
                .iter()
                .map(|mutation| (&mutation.index_mac, &mutation.value_mac)),
        );
        self.write("put_mutation_macs", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_app_state_macs (device_id, collection, index_mac, value_mac)
                 SELECT ?, ?, * FROM unnest(?, ?)
                 ON CONFLICT (device_id, collection, index_mac)
                 DO UPDATE SET value_mac = EXCLUDED.value_mac",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Text, _>(name)
            .bind::<Array<Binary>, _>(&index_macs)
            .bind::<Array<Binary>, _>(&value_macs)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    async fn get_mutation_mac(&self, name: &str, index_mac: &[u8]) -> Result<Option<Vec<u8>>> {
        self.read("get_mutation_mac", Patience::Brief, async |conn| {
            macs::table
                .find((self.device_id, name, index_mac))
                .select(macs::value_mac)
                .first(conn)
                .await
                .optional()
        })
        .await
    }

    async fn get_mutation_macs(
        &self,
        name: &str,
        index_macs: &[[u8; 32]],
    ) -> Result<HashMap<[u8; 32], Vec<u8>>> {
        let wanted: Vec<&[u8]> = index_macs.iter().map(|mac| &mac[..]).collect();
        let rows: Vec<(Vec<u8>, Vec<u8>)> = self
            .read("get_mutation_macs", Patience::Brief, async |conn| {
                macs::table
                    .filter(macs::device_id.eq(self.device_id))
                    .filter(macs::collection.eq(name))
                    .filter(macs::index_mac.eq_any(&wanted))
                    .select((macs::index_mac, macs::value_mac))
                    .load(conn)
                    .await
            })
            .await?;
        Ok(rows
            .into_iter()
            .filter_map(|(index, value)| Some((index.try_into().ok()?, value)))
            .collect())
    }

    async fn delete_mutation_macs(&self, name: &str, index_macs: &[Vec<u8>]) -> Result<()> {
        self.write("delete_mutation_macs", Patience::Brief, async |conn| {
            diesel::delete(macs::table)
                .filter(macs::device_id.eq(self.fenced()))
                .filter(macs::collection.eq(name))
                .filter(macs::index_mac.eq_any(index_macs))
                .execute(conn)
                .await
                .map(drop)
        })
        .await
    }

    async fn clear_mutation_macs(&self, name: &str) -> Result<()> {
        self.write("clear_mutation_macs", Patience::Brief, async |conn| {
            diesel::delete(macs::table)
                .filter(macs::device_id.eq(self.fenced()))
                .filter(macs::collection.eq(name))
                .execute(conn)
                .await
                .map(drop)
        })
        .await
    }

    async fn get_latest_sync_key_id(&self) -> Result<Option<Vec<u8>>> {
        self.read("get_latest_sync_key_id", Patience::Brief, async |conn| {
            keys::table
                .filter(keys::device_id.eq(self.device_id))
                .order(keys::sequence.desc())
                .select(keys::key_id)
                .first(conn)
                .await
                .optional()
        })
        .await
    }
}

fn serialization(error: serde_json::Error) -> StoreError {
    StoreError::Serialization(Box::new(error))
}
