//! Which LID is which phone number's.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Text};
use diesel_async::RunQueryDsl;
use domain::statement::Statement;
use whatsapp_rust::wacore::store::error::Result;
use whatsapp_rust::wacore::store::traits::LidPnMappingEntry;

use super::Store;
use super::columns::last_by_key;
use super::patience::Patience;
use super::schema::protocol_lid_mappings as mappings;

impl Store {
    pub(super) async fn lid_mapping(&self, lid: &str) -> Result<Option<LidPnMappingEntry>> {
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

    pub(super) async fn newest_lid_mapping(
        &self,
        phone: &str,
    ) -> Result<Option<LidPnMappingEntry>> {
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

    pub(super) async fn replace_lid_mappings(&self, entries: &[LidPnMappingEntry]) -> Result<()> {
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
            .bind::<Integer, _>(self.fenced())
            .bind::<Array<Text>, _>(&lids)
            .bind::<Array<Text>, _>(&phones)
            .bind::<Array<BigInt>, _>(&created)
            .bind::<Array<BigInt>, _>(&updated)
            .bind::<Array<Text>, _>(&sources)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    pub(super) async fn all_lid_mappings(&self) -> Result<Vec<LidPnMappingEntry>> {
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
