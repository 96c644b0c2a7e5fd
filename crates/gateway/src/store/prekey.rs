//! Prekeys, one-time and signed: what a stranger's first message needs.

use diesel::dsl::max;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer};
use diesel_async::RunQueryDsl;
use domain::sealed::{PREKEY, SIGNED_PREKEY};
use domain::statement::Statement;
use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::wacore::store::error::{Result, StoreError};

use super::Store;
use super::columns::last_by_key;
use super::patience::Patience;
use super::schema::{protocol_prekeys as prekeys, protocol_signed_prekeys as signed_prekeys};

impl Store {
    pub(super) async fn replace_prekeys(
        &self,
        keys: &[(u32, Bytes)],
        uploaded: bool,
    ) -> Result<()> {
        let sealed = |(id, record): &(u32, Bytes)| {
            (i64::from(*id), self.seal(PREKEY, &id.to_string(), record))
        };
        let (ids, records) = last_by_key(keys.iter().map(sealed));
        self.write("store_prekeys", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_prekeys (device_id, uploaded, prekey_id, record)
                 SELECT ?, ?, * FROM unnest(?, ?)
                 ON CONFLICT (device_id, prekey_id)
                 DO UPDATE SET record = EXCLUDED.record, uploaded = EXCLUDED.uploaded",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Bool, _>(uploaded)
            .bind::<Array<BigInt>, _>(&ids)
            .bind::<Array<Binary>, _>(&records)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    pub(super) async fn find_prekeys(&self, ids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
        let wanted: Vec<i64> = ids.iter().copied().map(i64::from).collect();
        let rows: Vec<(i64, Vec<u8>)> = self
            .read("load_prekeys", Patience::Outage, async |conn| {
                prekeys::table
                    .filter(prekeys::device_id.eq(self.device_id))
                    .filter(prekeys::prekey_id.eq_any(&wanted))
                    .order(prekeys::prekey_id)
                    .select((prekeys::prekey_id, prekeys::record))
                    .load(conn)
                    .await
            })
            .await?;
        rows.into_iter()
            .map(|(id, sealed)| {
                let record = self.open(PREKEY, &id.to_string(), &sealed)?;
                Ok((key_id(id)?, Bytes::from(record)))
            })
            .collect()
    }

    pub(super) async fn mark_uploaded(&self, ids: &[u32]) -> Result<()> {
        let ids: Vec<i64> = ids.iter().copied().map(i64::from).collect();
        self.write("mark_prekeys_uploaded", Patience::Brief, async |conn| {
            Statement::new(
                "UPDATE protocol_prekeys SET uploaded = true
                 WHERE device_id = ? AND prekey_id = ANY(?)",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Array<BigInt>, _>(&ids)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    pub(super) async fn highest_prekey_id(&self) -> Result<u32> {
        let highest: Option<i64> = self
            .read("get_max_prekey_id", Patience::Brief, async |conn| {
                prekeys::table
                    .filter(prekeys::device_id.eq(self.device_id))
                    .select(max(prekeys::prekey_id))
                    .first(conn)
                    .await
            })
            .await?;
        key_id(highest.unwrap_or(0))
    }

    pub(super) async fn replace_signed_prekey(&self, id: u32, record: &[u8]) -> Result<()> {
        let sealed = self.seal(SIGNED_PREKEY, &id.to_string(), record);
        self.write("store_signed_prekey", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_signed_prekeys (device_id, prekey_id, record)
                 VALUES (?, ?, ?)
                 ON CONFLICT (device_id, prekey_id) DO UPDATE SET record = EXCLUDED.record",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<BigInt, _>(i64::from(id))
            .bind::<Binary, _>(&sealed)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    pub(super) async fn all_signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        let rows: Vec<(i64, Vec<u8>)> = self
            .read("load_signed_prekeys", Patience::Outage, async |conn| {
                signed_prekeys::table
                    .filter(signed_prekeys::device_id.eq(self.device_id))
                    .order(signed_prekeys::prekey_id)
                    .select((signed_prekeys::prekey_id, signed_prekeys::record))
                    .load(conn)
                    .await
            })
            .await?;
        rows.into_iter()
            .map(|(id, sealed)| {
                let record = self.open(SIGNED_PREKEY, &id.to_string(), &sealed)?;
                Ok((key_id(id)?, record))
            })
            .collect()
    }

    pub(super) async fn find_signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>> {
        let sealed: Option<Vec<u8>> = self
            .read("load_signed_prekey", Patience::Outage, async |conn| {
                signed_prekeys::table
                    .find((self.device_id, i64::from(id)))
                    .select(signed_prekeys::record)
                    .first(conn)
                    .await
                    .optional()
            })
            .await?;
        sealed
            .map(|sealed| self.open(SIGNED_PREKEY, &id.to_string(), &sealed))
            .transpose()
    }

    pub(super) async fn delete_signed_prekey(&self, id: u32) -> Result<()> {
        self.write("remove_signed_prekey", Patience::Brief, async |conn| {
            diesel::delete(signed_prekeys::table.find((self.fenced(), i64::from(id))))
                .execute(conn)
                .await
                .map(drop)
        })
        .await
    }

    pub(super) async fn delete_prekey(&self, id: u32) -> Result<()> {
        self.write("remove_prekey", Patience::Brief, async |conn| {
            diesel::delete(prekeys::table.find((self.fenced(), i64::from(id))))
                .execute(conn)
                .await
                .map(drop)
        })
        .await
    }
}

fn key_id(id: i64) -> Result<u32> {
    u32::try_from(id).map_err(|_| StoreError::Validation(format!("a prekey with the id {id}")))
}
