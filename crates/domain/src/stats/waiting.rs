//! What waits, counted only so far.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::Events;
use crate::statement::Statement;

/// Parked events, and dead letters, that are counted.
const CAP: i64 = 10_000;
/// Events, of all webhooks, that are looked through for those of one that are not parked.
const LOOKED_THROUGH: i64 = 50_000;

impl Events {
    pub(super) async fn load(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
    ) -> QueryResult<Self> {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = Text)]
            what: String,
            #[diesel(sql_type = BigInt)]
            count: i64,
        }
        let counts: Vec<Count> = Statement::new(
            "WITH parked AS MATERIALIZED (
                 SELECT coalesce(parked, '') AS reason FROM whatsapp_webhook_events
                 WHERE webhook_id = ? AND client_id = ? AND status = 'pending' AND next_retry_at IS NULL
                 LIMIT ?),
             timed AS MATERIALIZED (
                 SELECT webhook_id, client_id, claim_token FROM whatsapp_webhook_events
                 WHERE status = 'pending' AND next_retry_at IS NOT NULL ORDER BY next_retry_at LIMIT ?),
             letters AS MATERIALIZED (
                 SELECT FROM whatsapp_dead_letters WHERE webhook_id = ? AND client_id = ? LIMIT ?)
             SELECT 'parked ' || reason AS what, count(*) AS count FROM parked GROUP BY reason
             UNION ALL SELECT 'in flight', count(*) FROM timed
                 WHERE webhook_id = ? AND client_id = ? AND claim_token IS NOT NULL
             UNION ALL SELECT 'due', count(*) FROM timed
                 WHERE webhook_id = ? AND client_id = ? AND claim_token IS NULL
             UNION ALL SELECT 'timed', count(*) FROM timed
             UNION ALL SELECT 'letters', count(*) FROM letters",
        )
        .bind::<SqlUuid, _>(webhook_id)
        .bind::<Integer, _>(client_id)
        .bind::<BigInt, _>(CAP)
        .bind::<BigInt, _>(LOOKED_THROUGH)
        .bind::<SqlUuid, _>(webhook_id)
        .bind::<Integer, _>(client_id)
        .bind::<BigInt, _>(CAP)
        .bind::<SqlUuid, _>(webhook_id)
        .bind::<Integer, _>(client_id)
        .bind::<SqlUuid, _>(webhook_id)
        .bind::<Integer, _>(client_id)
        .load(conn)
        .await?;
        let mut events = Self::default();
        for Count { what, count } in counts {
            match what.as_str() {
                "in flight" => events.in_flight = count,
                "due" => events.due = count,
                "timed" => events.capped |= count == LOOKED_THROUGH,
                "letters" => events.dead_letters = count,
                parked => {
                    let reason = parked.trim_start_matches("parked ").to_owned();
                    events.parked.insert(reason, count);
                }
            }
        }
        let parked: i64 = events.parked.values().sum();
        events.capped |= parked == CAP || events.dead_letters == CAP;
        events.pending = events.in_flight + events.due + parked;
        Ok(events)
    }
}
