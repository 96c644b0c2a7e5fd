//! What was sent, for a while: a contact who could not read it asks for it again. A body holds its
//! message's secret, so it is sealed.

use diesel::prelude::*;
use diesel::sql_types::{Binary, Double, Integer, Text};
use diesel_async::RunQueryDsl;
use domain::sealed::SENT_MESSAGE;
use domain::statement::Statement;
use whatsapp_rust::wacore::store::error::Result;

use super::Store;
use super::patience::Patience;
use super::schema::protocol_sent_messages as sent;

impl Store {
    pub(super) async fn keep_sent_message(
        &self,
        chat_jid: &str,
        message_id: &str,
        payload: &[u8],
    ) -> Result<()> {
        let sealed = self.seal(SENT_MESSAGE, &sent_row(chat_jid, message_id), payload);
        self.write("store_sent_message", Patience::Brief, async |conn| {
            Statement::new(
                "INSERT INTO protocol_sent_messages (device_id, chat_jid, message_id, payload)
                 VALUES (?, ?, ?, ?)
                 ON CONFLICT (device_id, chat_jid, message_id)
                 DO UPDATE SET payload = EXCLUDED.payload, stored_at = EXCLUDED.stored_at",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Text, _>(chat_jid)
            .bind::<Text, _>(message_id)
            .bind::<Binary, _>(&sealed)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    pub(super) async fn take_kept_message(
        &self,
        chat_jid: &str,
        message_id: &str,
    ) -> Result<Option<Vec<u8>>> {
        let sealed: Option<Vec<u8>> = self
            .write("take_sent_message", Patience::Brief, async |conn| {
                diesel::delete(sent::table.find((self.fenced(), chat_jid, message_id)))
                    .returning(sent::payload)
                    .get_result(conn)
                    .await
                    .optional()
            })
            .await?;
        sealed
            .map(|sealed| self.open(SENT_MESSAGE, &sent_row(chat_jid, message_id), &sealed))
            .transpose()
    }

    pub(super) async fn expire_sent_messages(&self, cutoff_timestamp: i64) -> Result<u32> {
        let rows = self
            .write(
                "delete_expired_sent_messages",
                Patience::Brief,
                async |conn| {
                    diesel::delete(sent::table)
                        .filter(sent::device_id.eq(self.fenced()))
                        .filter(sent::stored_at.lt(to_timestamp(cutoff_timestamp as f64)))
                        .execute(conn)
                        .await
                },
            )
            .await?;
        Ok(u32::try_from(rows).unwrap_or(u32::MAX))
    }
}

diesel::define_sql_function! {
    fn to_timestamp(seconds: Double) -> Timestamptz;
}

fn sent_row(chat_jid: &str, message_id: &str) -> String {
    format!("{chat_jid}/{message_id}")
}
