//! Signal's keys, sessions and ratchets.
//!
//! What a decryption reads waits for PostgreSQL: the library nacks a message whose session it could not
//! load, and WhatsApp then drops it.

use std::sync::Arc;

use diesel::dsl::max;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer, Text};
use diesel_async::RunQueryDsl;
use domain::statement::Statement;
use whatsapp_rust::async_trait;
use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::SignalStore;

use super::columns::last_by_key;
use super::patience::Patience;
use super::schema::{
    protocol_identities as identities, protocol_prekeys as prekeys,
    protocol_sender_keys as sender_keys, protocol_sessions as sessions,
    protocol_signed_prekeys as signed_prekeys,
};
use super::{Place, Store};

const SESSION: Place = Place {
    table: "protocol_sessions",
    column: "record",
};
const PREKEY: Place = Place {
    table: "protocol_prekeys",
    column: "record",
};
const SIGNED_PREKEY: Place = Place {
    table: "protocol_signed_prekeys",
    column: "record",
};
const SENDER_KEY: Place = Place {
    table: "protocol_sender_keys",
    column: "record",
};

#[async_trait]
impl SignalStore for Store {
    async fn put_identity(&self, address: &str, key: [u8; 32]) -> Result<()> {
        self.put_identities_batch(&[(address.into(), key)]).await
    }

    async fn put_identities_batch(&self, rows: &[(Arc<str>, [u8; 32])]) -> Result<()> {
        let (addresses, keys) =
            last_by_key(rows.iter().map(|(address, key)| (&**address, &key[..])));
        self.write("put_identities", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_identities (device_id, address, public_key)
                 SELECT ?, * FROM unnest(?, ?)
                 ON CONFLICT (device_id, address) DO UPDATE SET public_key = EXCLUDED.public_key",
            )
            .bind::<Integer, _>(self.device_id)
            .bind::<Array<Text>, _>(&addresses)
            .bind::<Array<Binary>, _>(&keys)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    async fn load_identity(&self, address: &str) -> Result<Option<[u8; 32]>> {
        let key: Option<Vec<u8>> = self
            .read("load_identity", Patience::Outage, async |conn| {
                identities::table
                    .find((self.device_id, address))
                    .select(identities::public_key)
                    .first(conn)
                    .await
                    .optional()
            })
            .await?;
        key.map(|key| {
            key.try_into().map_err(|key: Vec<u8>| {
                StoreError::Validation(format!("an identity key of {} bytes", key.len()))
            })
        })
        .transpose()
    }

    async fn delete_identity(&self, address: &str) -> Result<()> {
        self.write("delete_identity", Patience::Brief, async |conn| {
            diesel::delete(identities::table.find((self.device_id, address)))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn get_session(&self, address: &str) -> Result<Option<Bytes>> {
        let sealed: Option<Vec<u8>> = self
            .read("get_session", Patience::Outage, async |conn| {
                sessions::table
                    .find((self.device_id, address))
                    .select(sessions::record)
                    .first(conn)
                    .await
                    .optional()
            })
            .await?;
        sealed
            .map(|sealed| self.open(SESSION, address, &sealed).map(Bytes::from))
            .transpose()
    }

    async fn put_session(&self, address: &str, session: &[u8]) -> Result<()> {
        self.put_sessions_batch(&[(address.into(), Bytes::copy_from_slice(session))])
            .await
    }

    async fn put_sessions_batch(&self, rows: &[(Arc<str>, Bytes)]) -> Result<()> {
        let (addresses, records) = self.sealed_records(SESSION, rows);
        self.write_ratchet("put_sessions", async |conn| {
            Statement::new(
                "INSERT INTO protocol_sessions (device_id, address, record)
                 SELECT ?, * FROM unnest(?, ?)
                 ON CONFLICT (device_id, address) DO UPDATE SET record = EXCLUDED.record",
            )
            .bind::<Integer, _>(self.device_id)
            .bind::<Array<Text>, _>(&addresses)
            .bind::<Array<Binary>, _>(&records)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    async fn delete_session(&self, address: &str) -> Result<()> {
        self.write("delete_session", Patience::Brief, async |conn| {
            diesel::delete(sessions::table.find((self.device_id, address)))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn has_session(&self, address: &str) -> Result<bool> {
        self.read("has_session", Patience::Outage, async |conn| {
            diesel::select(diesel::dsl::exists(
                sessions::table.find((self.device_id, address)),
            ))
            .get_result(conn)
            .await
        })
        .await
    }

    async fn has_signal_state_for_user(&self, user: &str) -> Result<bool> {
        #[derive(QueryableByName)]
        struct Found {
            #[diesel(sql_type = Bool)]
            found: bool,
        }
        // `user@…` and `user:…` as ranges: `A` follows `@`, and `;` follows `:`.
        let bounds = ["@", "A", ":", ";"].map(|next| format!("{user}{next}"));
        let found: Found = self
            .read("has_signal_state", Patience::Outage, async |conn| {
                let mut statement = Statement::new(
                    "SELECT EXISTS (SELECT FROM protocol_sessions WHERE device_id = ?
                            AND (address >= ? AND address < ? OR address >= ? AND address < ?))
                         OR EXISTS (SELECT FROM protocol_identities WHERE device_id = ?
                            AND (address >= ? AND address < ? OR address >= ? AND address < ?))
                         AS found",
                );
                for _ in ["sessions", "identities"] {
                    statement = statement.bind::<Integer, _>(self.device_id);
                    for bound in &bounds {
                        statement = statement.bind::<Text, _>(bound);
                    }
                }
                statement.get_result(conn).await
            })
            .await?;
        Ok(found.found)
    }

    async fn store_prekey(&self, id: u32, record: &[u8], uploaded: bool) -> Result<()> {
        self.store_prekeys_batch(&[(id, Bytes::copy_from_slice(record))], uploaded)
            .await
    }

    async fn store_prekeys_batch(&self, keys: &[(u32, Bytes)], uploaded: bool) -> Result<()> {
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
            .bind::<Integer, _>(self.device_id)
            .bind::<Bool, _>(uploaded)
            .bind::<Array<BigInt>, _>(&ids)
            .bind::<Array<Binary>, _>(&records)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    async fn load_prekey(&self, id: u32) -> Result<Option<Bytes>> {
        let found = self.load_prekeys_batch(&[id]).await?;
        Ok(found.into_iter().next().map(|(_, record)| record))
    }

    async fn load_prekeys_batch(&self, ids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
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

    async fn mark_prekeys_uploaded(&self, ids: &[u32]) -> Result<()> {
        let ids: Vec<i64> = ids.iter().copied().map(i64::from).collect();
        self.write("mark_prekeys_uploaded", Patience::Brief, async |conn| {
            diesel::update(prekeys::table)
                .filter(prekeys::device_id.eq(self.device_id))
                .filter(prekeys::prekey_id.eq_any(&ids))
                .set(prekeys::uploaded.eq(true))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn remove_prekey(&self, id: u32) -> Result<()> {
        self.write("remove_prekey", Patience::Brief, async |conn| {
            diesel::delete(prekeys::table.find((self.device_id, i64::from(id))))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn get_max_prekey_id(&self) -> Result<u32> {
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

    async fn store_signed_prekey(&self, id: u32, record: &[u8]) -> Result<()> {
        let sealed = self.seal(SIGNED_PREKEY, &id.to_string(), record);
        self.write("store_signed_prekey", Patience::Brief, async |conn| {
            diesel::insert_into(signed_prekeys::table)
                .values((
                    signed_prekeys::device_id.eq(self.device_id),
                    signed_prekeys::prekey_id.eq(i64::from(id)),
                    signed_prekeys::record.eq(&sealed),
                ))
                .on_conflict((signed_prekeys::device_id, signed_prekeys::prekey_id))
                .do_update()
                .set(signed_prekeys::record.eq(&sealed))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn load_signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>> {
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

    async fn load_all_signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
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

    async fn remove_signed_prekey(&self, id: u32) -> Result<()> {
        self.write("remove_signed_prekey", Patience::Brief, async |conn| {
            diesel::delete(signed_prekeys::table.find((self.device_id, i64::from(id))))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn put_sender_key(&self, address: &str, record: &[u8]) -> Result<()> {
        self.put_sender_keys_batch(&[(address.into(), Bytes::copy_from_slice(record))])
            .await
    }

    async fn put_sender_keys_batch(&self, rows: &[(Arc<str>, Bytes)]) -> Result<()> {
        let (addresses, records) = self.sealed_records(SENDER_KEY, rows);
        self.write_ratchet("put_sender_keys", async |conn| {
            Statement::new(
                "INSERT INTO protocol_sender_keys (device_id, address, record)
                 SELECT ?, * FROM unnest(?, ?)
                 ON CONFLICT (device_id, address) DO UPDATE SET record = EXCLUDED.record",
            )
            .bind::<Integer, _>(self.device_id)
            .bind::<Array<Text>, _>(&addresses)
            .bind::<Array<Binary>, _>(&records)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    async fn get_sender_key(&self, address: &str) -> Result<Option<Vec<u8>>> {
        let sealed: Option<Vec<u8>> = self
            .read("get_sender_key", Patience::Outage, async |conn| {
                sender_keys::table
                    .find((self.device_id, address))
                    .select(sender_keys::record)
                    .first(conn)
                    .await
                    .optional()
            })
            .await?;
        sealed
            .map(|sealed| self.open(SENDER_KEY, address, &sealed))
            .transpose()
    }

    async fn delete_sender_key(&self, address: &str) -> Result<()> {
        self.write("delete_sender_key", Patience::Brief, async |conn| {
            diesel::delete(sender_keys::table.find((self.device_id, address)))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }
}

impl Store {
    fn sealed_records<'a>(
        &self,
        place: Place,
        rows: &'a [(Arc<str>, Bytes)],
    ) -> (Vec<&'a str>, Vec<Vec<u8>>) {
        let (addresses, records) =
            last_by_key(rows.iter().map(|(address, record)| (&**address, record)));
        let sealed = addresses
            .iter()
            .zip(records)
            .map(|(address, record)| self.seal(place, address, record))
            .collect();
        (addresses, sealed)
    }
}

fn key_id(id: i64) -> Result<u32> {
    u32::try_from(id).map_err(|_| StoreError::Validation(format!("a prekey with the id {id}")))
}
