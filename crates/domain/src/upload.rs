//! A file that a client put here to send it, within a day, as often as it likes.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Integer, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::statement::Statement;

/// Bytes of all files that a client has here at once.
pub const QUOTA: i64 = 512 * 1024 * 1024;

/// A file without its content.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Upload {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = Text)]
    pub mimetype: String,
    /// Bytes.
    #[diesel(sql_type = Integer)]
    pub size: i32,
    #[diesel(sql_type = Binary)]
    pub sha256: Vec<u8>,
}

impl Upload {
    /// Keeps a file; `None` when the client has as many here as it may. (Several at the same moment may
    /// exceed that together.)
    pub async fn insert(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        mimetype: &str,
        content: &[u8],
    ) -> QueryResult<Option<Self>> {
        Statement::new(
            "INSERT INTO whatsapp_uploads (id, client_id, mimetype, size, sha256, content)
             SELECT ?, ?, ?, ?, ?, ? WHERE ? >= ? + (
                 SELECT coalesce(sum(size), 0) FROM whatsapp_uploads WHERE client_id = ?)
             RETURNING id, mimetype, size, sha256",
        )
        .bind::<SqlUuid, _>(Uuid::now_v7())
        .bind::<Integer, _>(client_id)
        .bind::<Text, _>(mimetype)
        .bind::<Integer, _>(content.len() as i32)
        .bind::<Binary, _>(Sha256::digest(content).to_vec())
        .bind::<Binary, _>(content)
        .bind::<BigInt, _>(QUOTA)
        .bind::<BigInt, _>(content.len() as i64)
        .bind::<Integer, _>(client_id)
        .get_result(conn)
        .await
        .optional()
    }

    pub async fn find(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        id: Uuid,
    ) -> QueryResult<Option<Self>> {
        Statement::new(
            "SELECT id, mimetype, size, sha256 FROM whatsapp_uploads WHERE id = ? AND client_id = ?",
        )
        .bind::<SqlUuid, _>(id)
        .bind::<Integer, _>(client_id)
        .get_result(conn)
        .await
        .optional()
    }

    /// The file itself.
    pub async fn content(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        id: Uuid,
    ) -> QueryResult<Option<Vec<u8>>> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Binary)]
            content: Vec<u8>,
        }
        let row: Option<Row> =
            Statement::new("SELECT content FROM whatsapp_uploads WHERE id = ? AND client_id = ?")
                .bind::<SqlUuid, _>(id)
                .bind::<Integer, _>(client_id)
                .get_result(conn)
                .await
                .optional()?;
        Ok(row.map(|row| row.content))
    }

    /// Deletes those whose day is over.
    pub async fn tidy(conn: &mut AsyncPgConnection) -> QueryResult<usize> {
        Statement::new("DELETE FROM whatsapp_uploads WHERE created_at < now() - interval '1 day'")
            .execute(conn)
            .await
    }
}
