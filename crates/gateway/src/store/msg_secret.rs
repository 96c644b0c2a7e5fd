//! Message secrets: the keys to what is added to a message later (reactions, votes, edits).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Integer, Text};
use diesel_async::RunQueryDsl;
use domain::sealed::MESSAGE_SECRET;
use domain::statement::Statement;
use whatsapp_rust::async_trait;
use whatsapp_rust::wacore::store::error::Result;
use whatsapp_rust::wacore::store::traits::{
    MsgSecretEntry, MsgSecretStore, merge_msg_secret_expiry, merge_msg_secret_message_ts,
};

use super::Store;
use super::patience::Patience;
use super::schema::protocol_message_secrets as secrets;

#[async_trait]
impl MsgSecretStore for Store {
    /// Waits for PostgreSQL: the library drops what it could not store.
    async fn put_msg_secrets(&self, entries: Vec<MsgSecretEntry>) -> Result<usize> {
        let count = entries.len();
        let merged = merged(entries);
        let chats: Vec<&str> = merged.iter().map(|entry| &*entry.chat).collect();
        let senders: Vec<&str> = merged.iter().map(|entry| &*entry.sender).collect();
        let ids: Vec<&str> = merged.iter().map(|entry| &*entry.msg_id).collect();
        let expiries: Vec<i64> = merged.iter().map(|entry| entry.expires_at).collect();
        let timestamps: Vec<i64> = merged.iter().map(|entry| entry.message_ts).collect();
        let sealed: Vec<Vec<u8>> = merged
            .iter()
            .map(|e| {
                self.seal(
                    MESSAGE_SECRET,
                    &row(&e.chat, &e.sender, &e.msg_id),
                    &e.secret,
                )
            })
            .collect();
        self.write("put_msg_secrets", Patience::Outage, async |conn| {
            Statement::new(
                "INSERT INTO protocol_message_secrets AS kept (device_id, chat, sender, message_id,
                     secret, expires_at, message_timestamp)
                 SELECT ?, * FROM unnest(?, ?, ?, ?, ?, ?)
                 ON CONFLICT (device_id, chat, sender, message_id) DO UPDATE SET
                     secret = EXCLUDED.secret,
                     expires_at = CASE WHEN kept.expires_at = 0 OR EXCLUDED.expires_at = 0 THEN 0
                         ELSE greatest(kept.expires_at, EXCLUDED.expires_at) END,
                     message_timestamp
                         = greatest(kept.message_timestamp, EXCLUDED.message_timestamp)",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Array<Text>, _>(&chats)
            .bind::<Array<Text>, _>(&senders)
            .bind::<Array<Text>, _>(&ids)
            .bind::<Array<Binary>, _>(&sealed)
            .bind::<Array<BigInt>, _>(&expiries)
            .bind::<Array<BigInt>, _>(&timestamps)
            .execute(conn)
            .await
            .map(drop)
        })
        .await?;
        Ok(count)
    }

    async fn get_msg_secret(
        &self,
        chat: &str,
        sender: &str,
        msg_id: &str,
    ) -> Result<Option<Vec<u8>>> {
        let found = self.get_msg_secret_with_ts(chat, sender, msg_id).await?;
        Ok(found.map(|(secret, _)| secret))
    }

    async fn get_msg_secret_with_ts(
        &self,
        chat: &str,
        sender: &str,
        msg_id: &str,
    ) -> Result<Option<(Vec<u8>, i64)>> {
        let found: Option<(Vec<u8>, i64)> = self
            .read("get_msg_secret", Patience::Outage, async |conn| {
                secrets::table
                    .find((self.device_id, chat, sender, msg_id))
                    .select((secrets::secret, secrets::message_timestamp))
                    .first(conn)
                    .await
                    .optional()
            })
            .await?;
        found
            .map(|(sealed, timestamp)| {
                let secret = self.open(MESSAGE_SECRET, &row(chat, sender, msg_id), &sealed)?;
                Ok((secret, timestamp))
            })
            .transpose()
    }

    async fn delete_expired_msg_secrets(&self, cutoff_timestamp: i64) -> Result<u32> {
        let rows = self
            .write(
                "delete_expired_msg_secrets",
                Patience::Brief,
                async |conn| {
                    diesel::delete(secrets::table)
                        .filter(secrets::device_id.eq(self.fenced()))
                        .filter(secrets::expires_at.ne(0))
                        .filter(secrets::expires_at.le(cutoff_timestamp))
                        .execute(conn)
                        .await
                },
            )
            .await?;
        Ok(u32::try_from(rows).unwrap_or(u32::MAX))
    }
}

/// One entry per message, by the library's own rules, in the table's order.
fn merged(entries: Vec<MsgSecretEntry>) -> Vec<MsgSecretEntry> {
    let mut merged: BTreeMap<_, MsgSecretEntry> = BTreeMap::new();
    for entry in entries {
        let key = (
            entry.chat.clone(),
            entry.sender.clone(),
            entry.msg_id.clone(),
        );
        match merged.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(entry);
            }
            Entry::Occupied(mut occupied) => {
                let kept = occupied.get_mut();
                kept.secret = entry.secret;
                kept.expires_at = merge_msg_secret_expiry(kept.expires_at, entry.expires_at);
                kept.message_ts = merge_msg_secret_message_ts(kept.message_ts, entry.message_ts);
            }
        }
    }
    merged.into_values().collect()
}

/// JIDs hold no slash.
fn row(chat: &str, sender: &str, msg_id: &str) -> String {
    format!("{chat}/{sender}/{msg_id}")
}
