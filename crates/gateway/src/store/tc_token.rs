//! Trusted contacts' tokens: each row has two writers, who each own a part of it.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
use diesel_async::RunQueryDsl;
use domain::sealed::TC_TOKEN;
use domain::statement::Statement;
use whatsapp_rust::wacore::store::error::Result;
use whatsapp_rust::wacore::store::traits::TcTokenEntry;

use super::Store;
use super::patience::Patience;
use super::schema::protocol_tc_tokens as tokens;

impl Store {
    pub(super) async fn find_tc_token(&self, jid: &str) -> Result<Option<TcTokenEntry>> {
        let row: Option<(Option<Vec<u8>>, i64, Option<i64>)> = self
            .read("get_tc_token", Patience::Brief, async |conn| {
                tokens::table
                    .find((self.device_id, jid))
                    .select((
                        tokens::token,
                        tokens::token_timestamp,
                        tokens::sender_timestamp,
                    ))
                    .first(conn)
                    .await
                    .optional()
            })
            .await?;
        row.map(|(sealed, token_timestamp, sender_timestamp)| {
            let token = match sealed {
                Some(sealed) => self.open(TC_TOKEN, jid, &sealed)?,
                None => Vec::new(),
            };
            Ok(TcTokenEntry {
                token,
                token_timestamp,
                sender_timestamp,
            })
        })
        .transpose()
    }

    pub(super) async fn replace_tc_token(&self, jid: &str, entry: &TcTokenEntry) -> Result<()> {
        let sealed = self.sealed_token(jid, &entry.token);
        self.write("put_tc_token", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_tc_tokens
                     (device_id, jid, token, token_timestamp, sender_timestamp)
                 VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (device_id, jid) DO UPDATE SET token = EXCLUDED.token,
                     token_timestamp = EXCLUDED.token_timestamp,
                     sender_timestamp = EXCLUDED.sender_timestamp",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Text, _>(jid)
            .bind::<Nullable<Binary>, _>(&sealed)
            .bind::<BigInt, _>(entry.token_timestamp)
            .bind::<Nullable<BigInt>, _>(entry.sender_timestamp)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    /// The newer token wins; a placeholder never holds up a real one.
    pub(super) async fn receive_tc_token(
        &self,
        jid: &str,
        token: &[u8],
        token_timestamp: i64,
    ) -> Result<()> {
        let sealed = self.sealed_token(jid, token);
        self.write("store_received_tc_token", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_tc_tokens AS kept (device_id, jid, token, token_timestamp)
                 VALUES (?, ?, ?, ?)
                 ON CONFLICT (device_id, jid) DO UPDATE SET token = EXCLUDED.token,
                     token_timestamp = EXCLUDED.token_timestamp
                 WHERE kept.token IS NULL OR EXCLUDED.token_timestamp >= kept.token_timestamp",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Text, _>(jid)
            .bind::<Nullable<Binary>, _>(&sealed)
            .bind::<BigInt, _>(token_timestamp)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    /// Our own issue only ever moves forward.
    pub(super) async fn touch_tc_token(&self, jid: &str, sender_timestamp: i64) -> Result<()> {
        self.write("touch_tc_token", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_tc_tokens AS kept
                     (device_id, jid, token_timestamp, sender_timestamp)
                 VALUES (?, ?, ?, ?)
                 ON CONFLICT (device_id, jid) DO UPDATE SET
                     sender_timestamp = greatest(kept.sender_timestamp, EXCLUDED.sender_timestamp)",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Text, _>(jid)
            .bind::<BigInt, _>(sender_timestamp)
            .bind::<BigInt, _>(sender_timestamp)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    pub(super) async fn remove_tc_token(&self, jid: &str) -> Result<()> {
        self.write("delete_tc_token", Patience::Brief, async |conn| {
            diesel::delete(tokens::table.find((self.fenced(), jid)))
                .execute(conn)
                .await
                .map(drop)
        })
        .await
    }

    pub(super) async fn list_tc_token_jids(&self) -> Result<Vec<String>> {
        self.read("get_all_tc_token_jids", Patience::Brief, async |conn| {
            tokens::table
                .filter(tokens::device_id.eq(self.device_id))
                .select(tokens::jid)
                .load(conn)
                .await
        })
        .await
    }

    pub(super) async fn expire_tc_tokens(
        &self,
        token_cutoff: i64,
        sender_cutoff: i64,
    ) -> Result<u32> {
        let rows = self
            .write("delete_expired_tc_tokens", Patience::Brief, async |conn| {
                Statement::new(
                    "DELETE FROM protocol_tc_tokens WHERE device_id = ?
                         AND (token IS NULL OR token_timestamp < ?)
                         AND (sender_timestamp IS NULL OR sender_timestamp < ?)",
                )
                .bind::<Integer, _>(self.fenced())
                .bind::<BigInt, _>(token_cutoff)
                .bind::<BigInt, _>(sender_cutoff)
                .execute(conn)
                .await
            })
            .await?;
        Ok(u32::try_from(rows).unwrap_or(u32::MAX))
    }

    fn sealed_token(&self, jid: &str, token: &[u8]) -> Option<Vec<u8>> {
        (!token.is_empty()).then(|| self.seal(TC_TOKEN, jid, token))
    }
}
