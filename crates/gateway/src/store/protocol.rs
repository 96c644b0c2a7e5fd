//! What the library tracks of the protocol around Signal. Most of it is a cache of what the server can
//! tell again, so these operations are brief; the pending inbound rows are the exception.

use diesel::dsl::now;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Double, Integer, Text};
use diesel_async::RunQueryDsl;
use domain::statement::Statement;
use whatsapp_rust::async_trait;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::{
    DeviceListRecord, LidPnMappingEntry, PendingInboundKey, PendingInboundRow, ProtocolStore,
    TcTokenEntry,
};

use super::columns::last_by_key;
use super::patience::Patience;
use super::schema::{
    protocol_base_keys as base_keys, protocol_device_lists as device_lists,
    protocol_group_metadata as groups, protocol_lid_mappings as mappings,
    protocol_sender_key_devices as key_devices, protocol_sent_messages as sent,
};
use super::{Place, Store};

const SENT: Place = Place {
    table: "protocol_sent_messages",
    column: "payload",
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
            .bind::<Integer, _>(self.device_id)
            .bind::<Text, _>(group_jid)
            .bind::<Array<Text>, _>(&devices)
            .bind::<Array<Bool>, _>(&has_key)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    async fn clear_sender_key_devices(&self, group_jid: &str) -> Result<()> {
        self.write("clear_sender_key_devices", Patience::Brief, async |conn| {
            diesel::delete(key_devices::table)
                .filter(key_devices::device_id.eq(self.device_id))
                .filter(key_devices::group_jid.eq(group_jid))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn delete_sender_key_device_rows(&self, device_jids: &[&str]) -> Result<()> {
        self.write("delete_sender_key_devices", Patience::Brief, async |conn| {
            diesel::delete(key_devices::table)
                .filter(key_devices::device_id.eq(self.device_id))
                .filter(key_devices::device_jid.eq_any(device_jids))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn clear_all_sender_key_devices(&self) -> Result<()> {
        self.write(
            "clear_all_sender_key_devices",
            Patience::Brief,
            async |conn| {
                diesel::delete(key_devices::table)
                    .filter(key_devices::device_id.eq(self.device_id))
                    .execute(conn)
                    .await?;
                Ok(())
            },
        )
        .await
    }

    async fn get_lid_mapping(&self, lid: &str) -> Result<Option<LidPnMappingEntry>> {
        let row: Option<MappingRow> = self
            .read("get_lid_mapping", Patience::Brief, async |conn| {
                mappings::table
                    .find((self.device_id, lid))
                    .select(MappingRow::as_select())
                    .first(conn)
                    .await
                    .optional()
            })
            .await?;
        Ok(row.map(Into::into))
    }

    async fn get_pn_mapping(&self, phone: &str) -> Result<Option<LidPnMappingEntry>> {
        let row: Option<MappingRow> = self
            .read("get_pn_mapping", Patience::Brief, async |conn| {
                mappings::table
                    .filter(mappings::device_id.eq(self.device_id))
                    .filter(mappings::phone_number.eq(phone))
                    .order((mappings::updated_at.desc(), mappings::sequence.desc()))
                    .select(MappingRow::as_select())
                    .first(conn)
                    .await
                    .optional()
            })
            .await?;
        Ok(row.map(Into::into))
    }

    async fn put_lid_mapping(&self, entry: &LidPnMappingEntry) -> Result<()> {
        self.put_lid_mappings(std::slice::from_ref(entry)).await
    }

    async fn put_lid_mappings(&self, entries: &[LidPnMappingEntry]) -> Result<()> {
        let (lids, entries) = last_by_key(entries.iter().map(|entry| (&*entry.lid, entry)));
        let phones: Vec<&str> = entries.iter().map(|entry| &*entry.phone_number).collect();
        let created: Vec<i64> = entries.iter().map(|entry| entry.created_at).collect();
        let updated: Vec<i64> = entries.iter().map(|entry| entry.updated_at).collect();
        let sources: Vec<&str> = entries
            .iter()
            .map(|entry| &*entry.learning_source)
            .collect();
        self.write("put_lid_mappings", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_lid_mappings
                     (device_id, lid, phone_number, created_at, updated_at, learning_source)
                 SELECT ?, * FROM unnest(?, ?, ?, ?, ?)
                 ON CONFLICT (device_id, lid) DO UPDATE SET phone_number = EXCLUDED.phone_number,
                     created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at,
                     learning_source = EXCLUDED.learning_source, sequence = EXCLUDED.sequence",
            )
            .bind::<Integer, _>(self.device_id)
            .bind::<Array<Text>, _>(&lids)
            .bind::<Array<Text>, _>(&phones)
            .bind::<Array<BigInt>, _>(&created)
            .bind::<Array<BigInt>, _>(&updated)
            .bind::<Array<Text>, _>(&sources)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    async fn get_all_lid_mappings(&self) -> Result<Vec<LidPnMappingEntry>> {
        let rows: Vec<MappingRow> = self
            .read("get_all_lid_mappings", Patience::Brief, async |conn| {
                mappings::table
                    .filter(mappings::device_id.eq(self.device_id))
                    .select(MappingRow::as_select())
                    .load(conn)
                    .await
            })
            .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    async fn save_base_key(&self, address: &str, message_id: &str, base_key: &[u8]) -> Result<()> {
        self.write("save_base_key", Patience::Brief, async |conn| {
            diesel::insert_into(base_keys::table)
                .values((
                    base_keys::device_id.eq(self.device_id),
                    base_keys::address.eq(address),
                    base_keys::message_id.eq(message_id),
                    base_keys::public_key.eq(base_key),
                ))
                .on_conflict((
                    base_keys::device_id,
                    base_keys::address,
                    base_keys::message_id,
                ))
                .do_update()
                .set(base_keys::public_key.eq(base_key))
                .execute(conn)
                .await?;
            Ok(())
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
            diesel::delete(base_keys::table.find((self.device_id, address, message_id)))
                .execute(conn)
                .await?;
            Ok(())
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
            .bind::<Integer, _>(self.device_id)
            .bind::<Array<Text>, _>(&users)
            .bind::<Array<Text>, _>(&written)
            .execute(conn)
            .await?;
            Ok(())
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
            diesel::delete(device_lists::table.find((self.device_id, user)))
                .execute(conn)
                .await?;
            Ok(())
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
            diesel::insert_into(groups::table)
                .values((
                    groups::device_id.eq(self.device_id),
                    groups::group_jid.eq(group_jid),
                    groups::metadata.eq(blob),
                ))
                .on_conflict((groups::device_id, groups::group_jid))
                .do_update()
                .set(groups::metadata.eq(blob))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn delete_group_metadata(&self, group_jid: &str) -> Result<()> {
        self.write("delete_group_metadata", Patience::Brief, async |conn| {
            diesel::delete(groups::table.find((self.device_id, group_jid)))
                .execute(conn)
                .await?;
            Ok(())
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
        let sealed = self.seal(SENT, &sent_row(chat_jid, message_id), payload);
        self.write("store_sent_message", Patience::Brief, async |conn| {
            diesel::insert_into(sent::table)
                .values((
                    sent::device_id.eq(self.device_id),
                    sent::chat_jid.eq(chat_jid),
                    sent::message_id.eq(message_id),
                    sent::payload.eq(&sealed),
                ))
                .on_conflict((sent::device_id, sent::chat_jid, sent::message_id))
                .do_update()
                .set((sent::payload.eq(&sealed), sent::stored_at.eq(now)))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn take_sent_message(&self, chat_jid: &str, message_id: &str) -> Result<Option<Vec<u8>>> {
        let sealed: Option<Vec<u8>> = self
            .write("take_sent_message", Patience::Brief, async |conn| {
                diesel::delete(sent::table.find((self.device_id, chat_jid, message_id)))
                    .returning(sent::payload)
                    .get_result(conn)
                    .await
                    .optional()
            })
            .await?;
        sealed
            .map(|sealed| self.open(SENT, &sent_row(chat_jid, message_id), &sealed))
            .transpose()
    }

    async fn delete_expired_sent_messages(&self, cutoff_timestamp: i64) -> Result<u32> {
        let rows = self
            .write(
                "delete_expired_sent_messages",
                Patience::Brief,
                async |conn| {
                    diesel::delete(sent::table)
                        .filter(sent::device_id.eq(self.device_id))
                        .filter(sent::stored_at.lt(to_timestamp(cutoff_timestamp as f64)))
                        .execute(conn)
                        .await
                },
            )
            .await?;
        Ok(u32::try_from(rows).unwrap_or(u32::MAX))
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

diesel::define_sql_function! {
    fn to_timestamp(seconds: Double) -> Timestamptz;
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = mappings, check_for_backend(diesel::pg::Pg))]
struct MappingRow {
    lid: String,
    phone_number: String,
    created_at: i64,
    updated_at: i64,
    learning_source: String,
}

impl From<MappingRow> for LidPnMappingEntry {
    fn from(row: MappingRow) -> Self {
        Self {
            lid: row.lid,
            phone_number: row.phone_number,
            created_at: row.created_at,
            updated_at: row.updated_at,
            learning_source: row.learning_source,
        }
    }
}

fn sent_row(chat_jid: &str, message_id: &str) -> String {
    format!("{chat_jid}/{message_id}")
}

fn serialization(error: serde_json::Error) -> StoreError {
    StoreError::Serialization(Box::new(error))
}
