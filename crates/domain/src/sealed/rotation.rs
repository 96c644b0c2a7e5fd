//! Sealing anew, under the newest key, what is sealed under another, while everything runs.
//!
//! A table is read in ranges of its blocks, so that no row is read twice in a pass, nor a snapshot held for
//! long. A value is replaced only where the old one still stands, and a row that somebody has locked is
//! passed by: writers never wait for more than a small batch. Of a partitioned table each partition is read by
//! itself; one that is dropped meanwhile needs nothing any more. What was changed meanwhile may have been
//! sealed under an older key again, by a process that does not know the newest yet: passes go on until one
//! finds nothing to do.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use zeroize::Zeroizing;

use super::Place;
use crate::keyring::{Keyring, SealError};

/// What was done in one place.
#[derive(Debug)]
pub struct Rotated {
    pub place: Place,
    /// Values that are under the newest key now and were not.
    pub count: u64,
    /// Rows that still hold another, since somebody was always about to change them.
    pub left: u64,
    pub failures: Vec<Failure>,
}

/// A value that cannot be opened, and stays as it is.
#[derive(Debug)]
pub struct Failure {
    /// By the name that the row is sealed by.
    pub row: String,
    pub error: SealError,
}

/// How many values of a place are sealed under a key.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Usage {
    /// `None`: not a sealed value.
    #[diesel(sql_type = Nullable<Text>)]
    pub key: Option<String>,
    #[diesel(sql_type = BigInt)]
    pub count: i64,
}

/// Blocks of 8 KiB that one statement reads.
const BLOCKS: i64 = 128;
/// Rows that one statement replaces.
const BATCH: usize = 200;
/// Passes over a table that somebody keeps changing, and what is waited for who has a row locked.
const PASSES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

#[derive(QueryableByName)]
struct Old {
    /// Where the row lies.
    #[diesel(sql_type = Text)]
    place: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Binary)]
    sealed: Vec<u8>,
}

struct Replacement {
    place: String,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Place {
    /// Seals anew all that is not under the newest key. A second run does nothing.
    pub async fn rotate(
        self,
        conn: &mut AsyncPgConnection,
        keyring: &Keyring,
    ) -> QueryResult<Rotated> {
        let mut rotated = Rotated {
            place: self,
            count: 0,
            left: 0,
            failures: Vec::new(),
        };
        for _ in 0..PASSES {
            (rotated.left, rotated.failures) = (0, Vec::new());
            let before = rotated.count;
            self.pass(conn, keyring, &mut rotated).await?;
            if rotated.count == before && rotated.left == 0 {
                break;
            }
            if rotated.left > 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(rotated)
    }

    async fn pass(
        self,
        conn: &mut AsyncPgConnection,
        keyring: &Keyring,
        rotated: &mut Rotated,
    ) -> QueryResult<()> {
        for part in self.parts(conn).await? {
            match self.pass_part(conn, keyring, &part, rotated).await {
                Err(_) if is_gone(conn, &part).await? => {}
                done => done?,
            }
        }
        Ok(())
    }

    async fn pass_part(
        self,
        conn: &mut AsyncPgConnection,
        keyring: &Keyring,
        part: &str,
        rotated: &mut Rotated,
    ) -> QueryResult<()> {
        let blocks = blocks(conn, part).await?;
        for first in (0..blocks).step_by(BLOCKS as usize) {
            let mut replacements = Vec::new();
            for old in self.old(conn, keyring, part, first).await? {
                match self.open(keyring, &old.name, &old.sealed) {
                    Ok(opened) => replacements.push(Replacement {
                        new: self.seal(keyring, &old.name, &Zeroizing::new(opened)),
                        place: old.place,
                        old: old.sealed,
                    }),
                    Err(error) => {
                        let row = old.name;
                        rotated.failures.push(Failure { row, error });
                    }
                }
            }
            for batch in replacements.chunks(BATCH) {
                let replaced = self.replace(conn, part, batch).await?;
                rotated.count += replaced as u64;
                rotated.left += (batch.len() - replaced) as u64;
            }
        }
        Ok(())
    }

    /// The tables that hold its rows, named as SQL names them: the table itself, or its partitions.
    async fn parts(self, conn: &mut AsyncPgConnection) -> QueryResult<Vec<String>> {
        #[derive(QueryableByName)]
        struct Part {
            #[diesel(sql_type = Text)]
            name: String,
        }
        let parts: Vec<Part> = sql_query(
            "SELECT c.oid::regclass::text AS name FROM pg_class c
             WHERE c.oid = $1::text::regclass AND c.relkind = 'r'
             UNION ALL
             SELECT relid::regclass::text FROM pg_partition_tree($1::text::regclass) WHERE isleaf",
        )
        .bind::<Text, _>(self.table)
        .load(conn)
        .await?;
        Ok(parts.into_iter().map(|part| part.name).collect())
    }

    /// The values of a range of blocks that are not under the newest key.
    async fn old(
        self,
        conn: &mut AsyncPgConnection,
        keyring: &Keyring,
        part: &str,
        first: i64,
    ) -> QueryResult<Vec<Old>> {
        let Self { column, row, .. } = self;
        let newest = keyring.newest_prefix();
        sql_query(format!(
            "SELECT ctid::text AS place, {row} AS name, {column} AS sealed FROM {part}
             WHERE ctid >= $1::text::tid AND ctid < $2::text::tid AND substr({column}, 1, $3) <> $4"
        ))
        .bind::<Text, _>(format!("({first},0)"))
        .bind::<Text, _>(format!("({},0)", first + BLOCKS))
        .bind::<Integer, _>(newest.len() as i32)
        .bind::<Binary, _>(newest)
        .load(conn)
        .await
    }

    /// How many rows still held the old value, and were not locked.
    async fn replace(
        self,
        conn: &mut AsyncPgConnection,
        part: &str,
        batch: &[Replacement],
    ) -> QueryResult<usize> {
        let column = self.column;
        sql_query(format!(
            "WITH input AS MATERIALIZED (
                 SELECT place::tid AS place, old, new FROM unnest($1, $2, $3) AS t (place, old, new)),
             picked AS MATERIALIZED (
                 SELECT t.ctid AS place, input.new FROM {part} t
                 JOIN input ON t.ctid = input.place AND t.{column} = input.old
                 FOR UPDATE OF t SKIP LOCKED)
             UPDATE {part} t SET {column} = picked.new FROM picked WHERE t.ctid = picked.place"
        ))
        .bind::<Array<Text>, _>(batch.iter().map(|r| r.place.as_str()).collect::<Vec<_>>())
        .bind::<Array<Binary>, _>(batch.iter().map(|r| r.old.as_slice()).collect::<Vec<_>>())
        .bind::<Array<Binary>, _>(batch.iter().map(|r| r.new.as_slice()).collect::<Vec<_>>())
        .execute(conn)
        .await
    }

    /// Under which keys its values are sealed. Reads the whole table.
    pub async fn usage(self, conn: &mut AsyncPgConnection) -> QueryResult<Vec<Usage>> {
        let Self { table, column, .. } = self;
        sql_query(format!(
            "SELECT CASE WHEN length({column}) > 2 AND get_byte({column}, 0) = 1
                 THEN encode(substr({column}, 3, get_byte({column}, 1)), 'escape') END AS key, count(*) AS count
             FROM {table} WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 1"
        ))
        .load(conn)
        .await
    }
}

async fn blocks(conn: &mut AsyncPgConnection, part: &str) -> QueryResult<i64> {
    #[derive(QueryableByName)]
    struct Size {
        #[diesel(sql_type = BigInt)]
        blocks: i64,
    }
    let size: Size = sql_query(
        "SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::bigint AS blocks",
    )
    .bind::<Text, _>(part)
    .get_result(conn)
    .await?;
    Ok(size.blocks)
}

async fn is_gone(conn: &mut AsyncPgConnection, part: &str) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Bool)]
        gone: bool,
    }
    let row: Row = sql_query("SELECT to_regclass($1) IS NULL AS gone")
        .bind::<Text, _>(part)
        .get_result(conn)
        .await?;
    Ok(row.gone)
}
