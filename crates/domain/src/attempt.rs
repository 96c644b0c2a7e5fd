//! The ledger: one row per attempt to deliver an event, whatever came of it.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::schema::whatsapp_delivery_attempts as attempts;

#[derive(Debug, Clone, Serialize, ToSchema, Queryable, QueryableByName, Selectable)]
#[diesel(table_name = attempts, check_for_backend(diesel::pg::Pg))]
pub struct Attempt {
    pub attempt: i32,
    pub started_at: DateTime<Utc>,
    pub duration_ms: i32,
    #[schema(required = true)]
    pub http_status: Option<i32>,
    #[schema(required = true)]
    pub error_class: Option<String>,
    #[schema(required = true)]
    pub error: Option<String>,
    #[schema(required = true)]
    pub response: Option<String>,
    /// Its claim was no longer held: it changed nothing.
    pub superseded: bool,
    /// It found out whether the receiver is back, and used up nothing.
    pub probe: bool,
    /// The request that carried other events too.
    #[schema(required = true)]
    pub batch_id: Option<Uuid>,
}

impl Attempt {
    /// All attempts at one event, in the order in which they began.
    pub async fn list(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        event_id: Uuid,
    ) -> QueryResult<Vec<Self>> {
        attempts::table
            .filter(attempts::event_id.eq(event_id))
            .filter(attempts::client_id.eq(client_id))
            .order(attempts::started_at)
            .select(Self::as_select())
            .load(conn)
            .await
    }
}
