//! What the library tracks of the protocol around Signal. Most of it is a cache of what the server can
//! tell again, so these operations are brief; the pending inbound rows are the exception.

use diesel::prelude::*;
use diesel::sql_types::{Array, Binary, Bool, Integer, Text};
use diesel_async::RunQueryDsl;
use domain::statement::Statement;
use whatsapp_rust::async_trait;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::{
    DeviceListRecord, LidPnMappingEntry, PendingInboundKey, PendingInboundRow, ProtocolStore,
    TcTokenEntry,
};

use super::Store;
use super::columns::last_by_key;
use super::patience::Patience;
use super::schema::{
    protocol_base_keys as base_keys, protocol_device_lists as device_lists,
    protocol_group_metadata as groups, protocol_sender_key_devices as key_devices,
};

#[async_trait]
impl ProtocolStore for Store {
    async fn get_sender_key_devices(&self, group_jid: &str) -> Result<Vec<(String, bool)>> {
        self.read("get_sender_key_devices", Patience::Brief, async |conn| {
            key_devices::table
                .filter(key_devices::device_id.eq(self.device_id))
                .filter(key_devices::group_jid.eq(group_jid))
                .select((key_devices::device_jid, key_devices::has_key))
                .load(conn)
                .await
        })
        .await
    }

    async fn set_sender_key_status(&self, group_jid: &str, entries: &[(&str, bool)]) -> Result<()> {
        let (devices, has_key) = last_by_key(entries.iter().copied());
        self.write("set_sender_key_status", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_sender_key_devices (device_id, group_jid, device_jid, has_key)
                 SELECT ?, ?, * FROM unnest(?, ?)
                 ON CONFLICT (device_id, group_jid, device_jid)
                 DO UPDATE SET has_key = EXCLUDED.has_key",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Text, _>(group_jid)
            .bind::<Array<Text>, _>(&devices)
            .bind::<Array<Bool>, _>(&has_key)
            .execute(conn)
            .await
.map(drop)
        })
        .await
    }

    async fn clear_sender_key_devices(&self, group_jid: &str) -> Result<()> {
        self.write("clear_sender_key_devices", Patience::Brief, async |conn| {
            diesel::delete(key_devices::table)
                .filter(key_devices::device_id.eq(self.fenced()))
                .filter(key_devices::group_jid.eq(group_jid))
                .execute(conn)
                .await
                .map(drop)
        })
        .await
    }

    async fn delete_sender_key_device_rows(&self, device_jids: &[&str]) -> Result<()> {
        self.write("delete_sender_key_devices", Patience::Brief, async |conn| {
            diesel::delete(key_devices::table)
                .filter(key_devices::device_id.eq(self.fenced()))
                .filter(key_devices::device_jid.eq_any(device_jids))
                .execute(conn)
                .await
                .map(drop)
        })
        .await
    }

    async fn clear_all_sender_key_devices(&self) -> Result<()> {
        self.write(
            "clear_all_sender_key_devices",
            Patience::Brief,
            async |conn| {
                diesel::delete(key_devices::table)
                    .filter(key_devices::device_id.eq(self.fenced()))
                    .execute(conn)
                    .await?;
                Ok(())
            },
        )
        .await
    }

    async fn get_lid_mapping(&self, lid: &str) -> Result<Option<LidPnMappingEntry>> {
        self.lid_mapping(lid).await
    }

    async fn get_pn_mapping(&self, phone: &str) -> Result<Option<LidPnMappingEntry>> {
        self.newest_lid_mapping(phone).await
    }

    async fn put_lid_mapping(&self, entry: &LidPnMappingEntry) -> Result<()> {
        self.put_lid_mappings(std::slice::from_ref(entry)).await
    }

    async fn put_lid_mappings(&self, entries: &[LidPnMappingEntry]) -> Result<()> {
        self.replace_lid_mappings(entries).await
    }

    async fn get_all_lid_mappings(&self) -> Result<Vec<LidPnMappingEntry>> {
        self.all_lid_mappings().await
    }

    async fn save_base_key(&self, address: &str, message_id: &str, base_key: &[u8]) -> Result<()> {
        self.write("save_base_key", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_base_keys (device_id, address, message_id, public_key)
                 VALUES (?, ?, ?, ?)
                 ON CONFLICT (device_id, address, message_id)
                 DO UPDATE SET public_key = EXCLUDED.public_key",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Text, _>(address)
            .bind::<Text, _>(message_id)
            .bind::<Binary, _>(base_key)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    async fn has_same_base_key(
        &self,
        address: &str,
        message_id: &str,
        current_base_key: &[u8],
    ) -> Result<bool> {
        let saved: Option<Vec<u8>> = self
            .read("has_same_base_key", Patience::Brief, async |conn| {
                base_keys::table
                    .find((self.device_id, address, message_id))
                    .select(base_keys::public_key)
                    .first(conn)
                    .await
                    .optional()
            })
            .await?;
        Ok(saved.is_some_and(|saved| saved == current_base_key))
    }

    async fn delete_base_key(&self, address: &str, message_id: &str) -> Result<()> {
        self.write("delete_base_key", Patience::Brief, async |conn| {
            diesel::delete(base_keys::table.find((self.fenced(), address, message_id)))
                .execute(conn)
                .await
                .map(drop)
        })
        .await
    }

    async fn update_device_list(&self, record: DeviceListRecord) -> Result<()> {
        self.update_device_lists(vec![record]).await
    }

    async fn update_device_lists(&self, records: Vec<DeviceListRecord>) -> Result<()> {
        let written = records
            .iter()
            .map(|record| Ok((&*record.user, serde_json::to_string(record)?)))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(serialization)?;
        let (users, written) = last_by_key(written);
        self.write("update_device_lists", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_device_lists (device_id, user_part, record)
                 SELECT ?, * FROM unnest(?, ?)
                 ON CONFLICT (device_id, user_part) DO UPDATE SET record = EXCLUDED.record",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Array<Text>, _>(&users)
            .bind::<Array<Text>, _>(&written)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    async fn get_devices(&self, user: &str) -> Result<Option<DeviceListRecord>> {
        let record: Option<String> = self
            .read("get_devices", Patience::Brief, async |conn| {
                device_lists::table
                    .find((self.device_id, user))
                    .select(device_lists::record)
                    .first(conn)
                    .await
                    .optional()
            })
            .await?;
        record
            .map(|record| serde_json::from_str(&record).map_err(serialization))
            .transpose()
    }

    async fn delete_devices(&self, user: &str) -> Result<()> {
        self.write("delete_devices", Patience::Brief, async |conn| {
            diesel::delete(device_lists::table.find((self.fenced(), user)))
                .execute(conn)
                .await
                .map(drop)
        })
        .await
    }

    async fn get_group_metadata(&self, group_jid: &str) -> Result<Option<Vec<u8>>> {
        self.read("get_group_metadata", Patience::Brief, async |conn| {
            groups::table
                .find((self.device_id, group_jid))
                .select(groups::metadata)
                .first(conn)
                .await
                .optional()
        })
        .await
    }

    async fn put_group_metadata(&self, group_jid: &str, blob: &[u8]) -> Result<()> {
        self.write("put_group_metadata", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_group_metadata (device_id, group_jid, metadata)
                 VALUES (?, ?, ?)
                 ON CONFLICT (device_id, group_jid) DO UPDATE SET metadata = EXCLUDED.metadata",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Text, _>(group_jid)
            .bind::<Binary, _>(blob)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    async fn delete_group_metadata(&self, group_jid: &str) -> Result<()> {
        self.write("delete_group_metadata", Patience::Brief, async |conn| {
            diesel::delete(groups::table.find((self.fenced(), group_jid)))
                .execute(conn)
                .await
                .map(drop)
        })
        .await
    }

    async fn get_tc_token(&self, jid: &str) -> Result<Option<TcTokenEntry>> {
        self.find_tc_token(jid).await
    }

    async fn put_tc_token(&self, jid: &str, entry: &TcTokenEntry) -> Result<()> {
        self.replace_tc_token(jid, entry).await
    }

    async fn delete_tc_token(&self, jid: &str) -> Result<()> {
        self.remove_tc_token(jid).await
    }

    async fn get_all_tc_token_jids(&self) -> Result<Vec<String>> {
        self.list_tc_token_jids().await
    }

    async fn delete_expired_tc_tokens(&self, token_cutoff: i64, sender_cutoff: i64) -> Result<u32> {
        self.expire_tc_tokens(token_cutoff, sender_cutoff).await
    }

    async fn touch_tc_token_sender_timestamp(
        &self,
        jid: &str,
        sender_timestamp: i64,
    ) -> Result<()> {
        self.touch_tc_token(jid, sender_timestamp).await
    }

    async fn store_received_tc_token(
        &self,
        jid: &str,
        token: &[u8],
        token_timestamp: i64,
    ) -> Result<()> {
        self.receive_tc_token(jid, token, token_timestamp).await
    }

    async fn store_sent_message(
        &self,
        chat_jid: &str,
        message_id: &str,
        payload: &[u8],
    ) -> Result<()> {
        self.keep_sent_message(chat_jid, message_id, payload).await
    }

    async fn take_sent_message(&self, chat_jid: &str, message_id: &str) -> Result<Option<Vec<u8>>> {
        self.take_kept_message(chat_jid, message_id).await
    }

    async fn delete_expired_sent_messages(&self, cutoff_timestamp: i64) -> Result<u32> {
        self.expire_sent_messages(cutoff_timestamp).await
    }

    async fn store_pending_inbound(
        &self,
        chat: &str,
        sender: &str,
        id: &str,
        message: &[u8],
    ) -> Result<()> {
        let row = PendingInboundRow {
            chat,
            sender,
            id,
            message,
        };
        self.keep_bodies(&[row]).await
    }

    async fn get_pending_inbound(
        &self,
        chat: &str,
        sender: &str,
        id: &str,
    ) -> Result<Option<Vec<u8>>> {
        self.find_body(chat, sender, id).await
    }

    async fn delete_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<()> {
        self.settle_bodies(&[PendingInboundKey { chat, sender, id }])
            .await
    }

    async fn delete_expired_pending_inbound(&self, cutoff_timestamp: i64) -> Result<u32> {
        self.expire_bodies(cutoff_timestamp).await
    }

    async fn store_pending_inbound_batch(&self, rows: &[PendingInboundRow<'_>]) -> Result<()> {
        self.keep_bodies(rows).await
    }

    async fn delete_pending_inbound_batch(&self, keys: &[PendingInboundKey<'_>]) -> Result<()> {
        self.settle_bodies(keys).await
    }
}

fn serialization(error: serde_json::Error) -> StoreError {
    StoreError::Serialization(Box::new(error))
}
