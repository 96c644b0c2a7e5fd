//! Signal's keys, sessions and ratchets.
//!
//! What a decryption reads waits for PostgreSQL: the library nacks a message whose session it could not
//! load, and WhatsApp then drops it.

use std::sync::Arc;

use diesel::prelude::*;
use diesel::sql_types::{Array, Binary, Bool, Integer, Text};
use diesel_async::RunQueryDsl;
use domain::sealed::{Place, SENDER_KEY, SESSION};
use domain::statement::Statement;
use whatsapp_rust::async_trait;
use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::SignalStore;

use super::Store;
use super::columns::last_by_key;
use super::patience::Patience;
use super::ratchets::Session;
use super::schema::{
    protocol_identities as identities, protocol_sender_keys as sender_keys,
    protocol_sessions as sessions,
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
            .bind::<Integer, _>(self.fenced())
            .bind::<Array<Text>, _>(&addresses)
            .bind::<Array<Binary>, _>(&keys)
            .execute(conn)
            .await
            .map(drop)
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
            diesel::delete(identities::table.find((self.fenced(), address)))
                .execute(conn)
                .await
                .map(drop)
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
        let rows = addresses.into_iter().zip(records);
        let rows = rows.map(|(address, record)| Session {
            address: address.to_owned(),
            record,
        });
        self.keep_sessions(Arc::new(rows.collect())).await
    }

    async fn delete_session(&self, address: &str) -> Result<()> {
        self.write("delete_session", Patience::Brief, async |conn| {
            diesel::delete(sessions::table.find((self.fenced(), address)))
                .execute(conn)
                .await
                .map(drop)
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
        self.replace_prekeys(keys, uploaded).await
    }

    async fn load_prekey(&self, id: u32) -> Result<Option<Bytes>> {
        let found = self.load_prekeys_batch(&[id]).await?;
        Ok(found.into_iter().next().map(|(_, record)| record))
    }

    async fn load_prekeys_batch(&self, ids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
        self.find_prekeys(ids).await
    }

    async fn mark_prekeys_uploaded(&self, ids: &[u32]) -> Result<()> {
        self.mark_uploaded(ids).await
    }

    async fn remove_prekey(&self, id: u32) -> Result<()> {
        self.delete_prekey(id).await
    }

    async fn get_max_prekey_id(&self) -> Result<u32> {
        self.highest_prekey_id().await
    }

    async fn store_signed_prekey(&self, id: u32, record: &[u8]) -> Result<()> {
        self.replace_signed_prekey(id, record).await
    }

    async fn load_signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>> {
        self.find_signed_prekey(id).await
    }

    async fn load_all_signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        self.all_signed_prekeys().await
    }

    async fn remove_signed_prekey(&self, id: u32) -> Result<()> {
        self.delete_signed_prekey(id).await
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
            .bind::<Integer, _>(self.fenced())
            .bind::<Array<Text>, _>(&addresses)
            .bind::<Array<Binary>, _>(&records)
            .execute(conn)
            .await
            .map(drop)
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
            diesel::delete(sender_keys::table.find((self.fenced(), address)))
                .execute(conn)
                .await
                .map(drop)
        })
        .await
    }
}

impl Store {
    /// Whether the key is kept by which a group's member encrypts, who has one or another of these users'
    /// names.
    pub(crate) async fn has_sender_key(&self, group: &str, users: &[&str]) -> Result<bool> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Bool)]
            kept: bool,
        }
        let row: Row = self
            .read("has_sender_key", Patience::Brief, async |conn| {
                // An address is the group's and the member's with a colon between them.
                Statement::new(
                    "SELECT EXISTS (SELECT FROM protocol_sender_keys, unnest(?) AS member
                         WHERE device_id = ? AND starts_with(address, ? || ':' || member)) AS kept",
                )
                .bind::<Array<Text>, _>(users)
                .bind::<Integer, _>(self.device_id)
                .bind::<Text, _>(group)
                .get_result(conn)
                .await
            })
            .await?;
        Ok(row.kept)
    }

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
