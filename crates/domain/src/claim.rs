//! Claims: the right to attempt an event once, held under a token until a deadline.
//!
//! A claim sets `claim_token`, and `claimed_until` to its deadline; past that the event can be claimed
//! again, so a dispatcher that dies needs no cleaning up after. An outcome is recorded only under the token
//! that still stands (see [`crate::record`]). The clock is PostgreSQL's.
//!
//! The claim of a rung event leaves `next_retry_at` as it is, so that no index is written. Where the claim
//! outlasts it, the event is due and claimed; [`put_off`] takes such events out of the poller's way. Where it
//! does not (an event that waited for its turn is due in minutes), the poller comes when the event is due.
//!
//! Nothing is claimed of a webhook that is inactive, deleted or behind an open circuit, nor out of its
//! turn in a chat; [`crate::parking`] takes such events out of the poller's way.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::parking;
use crate::payload::Payload;
use crate::statement::{Statement, among, unclaimed};

/// An event in the hands of one dispatcher. How and where it is to be delivered, its webhook's
/// [`Destination`](crate::destination::Destination) says.
#[derive(Debug, Clone, QueryableByName)]
pub struct Claimed {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = Integer)]
    pub client_id: i32,
    #[diesel(sql_type = SqlUuid)]
    pub webhook_id: Uuid,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub connection_id: Option<Uuid>,
    #[diesel(sql_type = Text)]
    pub event_type: String,
    #[diesel(sql_type = Text)]
    pub message_id: String,
    #[diesel(sql_type = Text)]
    pub from: String,
    #[diesel(sql_type = Text)]
    pub to: String,
    #[diesel(sql_type = Text)]
    pub message_type: String,
    #[diesel(sql_type = Text)]
    pub content: String,
    #[diesel(sql_type = Text)]
    pub metadata: String,
    #[diesel(sql_type = Timestamptz)]
    pub timestamp: DateTime<Utc>,
    /// Attempts that were recorded before this one.
    #[diesel(sql_type = Integer)]
    pub attempt_count: i32,
    /// Whether it finds out if the receiver is back; failing, it uses up no attempt.
    #[diesel(sql_type = Bool)]
    pub probe: bool,
    /// Seconds since its commit, by PostgreSQL's clock.
    #[diesel(sql_type = Double)]
    pub age_seconds: f64,
    /// Seconds for which it had been due when it was claimed; negative for one that was rung before.
    #[diesel(sql_type = Double)]
    pub overdue_seconds: f64,
    /// Of the settings of its webhook: another one whenever they change.
    #[diesel(sql_type = Timestamptz)]
    pub webhook_version: DateTime<Utc>,
}

impl Claimed {
    /// The body of the delivery. Of an event as it was claimed, the same bytes at every attempt.
    pub fn body(&self) -> serde_json::Result<Vec<u8>> {
        let metadata: &RawValue = serde_json::from_str(&self.metadata)?;
        serde_json::to_vec(&Payload {
            client_id: self.client_id,
            message_id: &self.message_id,
            from: &self.from,
            to: &self.to,
            timestamp: self.timestamp,
            message_type: &self.message_type,
            content: &self.content,
            metadata,
            event: &self.event_type,
            event_id: self.id,
            connection_id: self.connection_id,
        })
    }
}

/// What every claim returns, of the event `e`, its webhook `w` and the `picked` row.
macro_rules! returning_claimed {
    ($probe:literal) => {
        concat!(
            r#" RETURNING e.id, e.client_id, e.webhook_id, e.connection_id, e.event_type, e.message_id, e."from",
                   e."to", e.message_type, e.content, e.metadata::text AS metadata, e."timestamp", e.attempt_count, "#,
            $probe,
            " AS probe, extract(epoch FROM now() - e.created_at)::float8 AS age_seconds,
               extract(epoch FROM now() - picked.due)::float8 AS overdue_seconds, w.updated_at AS webhook_version"
        )
    };
}

/// That no event of the same chat is to be delivered before the event `e` of the webhook `w`.
macro_rules! in_its_turn {
    () => {
        "(e.order_key IS NULL OR NOT w.ordered OR NOT EXISTS (
              SELECT FROM whatsapp_webhook_events earlier
              WHERE earlier.webhook_id = e.webhook_id AND earlier.order_key = e.order_key
                AND earlier.status = 'pending' AND earlier.sequence < e.sequence))"
    };
}

/// The end of both claims: it takes the ids that `picked` holds, where their webhook takes deliveries.
///
/// The picked rows go through arrays: of those PostgreSQL expects few elements, and looks each up. To join
/// as many as the CTE may hold it would read whole partitions.
macro_rules! take_picked {
    ($moves:literal, $bounds:literal) => {
        concat!(
            "UPDATE whatsapp_webhook_events e
             SET claim_token = ?, parked = NULL, ",
            $moves,
            "claimed_until = now() + make_interval(secs => ? + coalesce(w.batch_max_wait_ms, 0) / 1000.0)
             FROM unnest(ARRAY(SELECT id FROM picked), ARRAY(SELECT due FROM picked)) AS picked (id, due),
                 whatsapp_webhooks w
             WHERE e.id = picked.id ",
            $bounds,
            " AND w.id = e.webhook_id AND w.is_active AND w.deleted_at IS NULL
               AND w.status = 'active' AND ",
            in_its_turn!(),
            returning_claimed!("false")
        )
    };
}

/// Claims events that were rung: those never attempted, or due. A ring that is replayed, or late,
/// claims nothing and bypasses no backoff. A claim lasts for `deadline_seconds`, and as long as a batch of
/// the webhook may wait.
///
/// The least and the greatest id go along as such: by them PostgreSQL leaves partitions out, which it
/// can't by an array. The status is disguised, or the ids would be looked for in the index of what is due,
/// by reading all of it: by old statistics it may be the smallest there is.
pub async fn claim(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
    token: Uuid,
    deadline_seconds: f64,
) -> QueryResult<Vec<Claimed>> {
    let (Some(least), Some(greatest)) = (ids.iter().min(), ids.iter().max()) else {
        return Ok(Vec::new());
    };
    Statement::new(concat!(
        "WITH picked AS MATERIALIZED (
             SELECT id, next_retry_at AS due FROM whatsapp_webhook_events e
             WHERE id = ANY(?) AND id BETWEEN ? AND ? AND coalesce(status, '') = 'pending'
               AND ((attempt_count = 0 AND claim_token IS NULL AND next_retry_at IS NOT NULL)
                    OR next_retry_at <= now() AND ",
        unclaimed!("e"),
        ") ORDER BY id FOR UPDATE SKIP LOCKED) ",
        take_picked!("", "AND e.id BETWEEN ? AND ?")
    ))
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<SqlUuid, _>(*least)
    .bind::<SqlUuid, _>(*greatest)
    .bind::<SqlUuid, _>(token)
    .bind::<Double, _>(deadline_seconds)
    .bind::<SqlUuid, _>(*least)
    .bind::<SqlUuid, _>(*greatest)
    .load(conn)
    .await
}

/// Claims whatever is due, oldest first: retries, lost doorbells, manual retries, and what a dead
/// dispatcher held.
pub async fn claim_due(
    conn: &mut AsyncPgConnection,
    limit: i64,
    token: Uuid,
    deadline_seconds: f64,
) -> QueryResult<Vec<Claimed>> {
    Statement::new(concat!(
        "WITH picked AS MATERIALIZED (
             SELECT id, next_retry_at AS due FROM whatsapp_webhook_events e
             WHERE status = 'pending' AND next_retry_at <= now() AND ",
        unclaimed!("e"),
        " ORDER BY next_retry_at LIMIT ? FOR UPDATE SKIP LOCKED) ",
        take_picked!(
            "next_retry_at = now() + make_interval(secs => ? + coalesce(w.batch_max_wait_ms, 0) / 1000.0), ",
            ""
        )
    ))
    .bind::<BigInt, _>(limit)
    .bind::<SqlUuid, _>(token)
    .bind::<Double, _>(deadline_seconds)
    .bind::<Double, _>(deadline_seconds)
    .load(conn)
    .await
}

/// Takes events out of the poller's way that are due, yet under a claim that has lasted for a second or more:
/// most claims are over by then, and need no other write. Looks at the `limit` events that have been due for
/// the longest time; returns how many it put off.
pub async fn put_off(
    conn: &mut AsyncPgConnection,
    limit: i64,
    deadline_seconds: f64,
) -> QueryResult<usize> {
    Statement::new(concat!(
        "WITH due AS MATERIALIZED (
             SELECT id, claimed_until FROM whatsapp_webhook_events
             WHERE status = 'pending' AND next_retry_at <= now()
             ORDER BY next_retry_at LIMIT ?),
         claimed AS MATERIALIZED (
             SELECT id FROM due
             WHERE claimed_until > now() AND claimed_until < now() + make_interval(secs => ? - 1)),
         picked AS MATERIALIZED (
             SELECT e.id FROM whatsapp_webhook_events e
             WHERE ",
        among!("claimed"),
        " AND e.status = 'pending' AND e.next_retry_at <= now() AND e.claimed_until > now()
             FOR UPDATE OF e SKIP LOCKED)
         UPDATE whatsapp_webhook_events e SET next_retry_at = claimed_until
         WHERE ",
        among!("picked")
    ))
    .bind::<BigInt, _>(limit)
    .bind::<Double, _>(deadline_seconds)
    .execute(conn)
    .await
}

/// Claims one parked event for each webhook whose open circuit is to be probed, at most `limit`. Which
/// one rotates, so that an event that the receiver can't take doesn't hold the circuit open. All
/// dispatchers together have one probe of a webhook out at a time.
pub async fn claim_probes(
    conn: &mut AsyncPgConnection,
    limit: i64,
    token: Uuid,
    deadline_seconds: f64,
) -> QueryResult<Vec<Claimed>> {
    conn.transaction(async |conn| {
        let webhooks = parking::take_turns(conn, parking::Circuit::Open, limit).await?;
        if webhooks.is_empty() {
            return Ok(Vec::new());
        }
        let probes = probe(conn, &webhooks, token, deadline_seconds).await?;
        let idle: Vec<Uuid> = webhooks
            .into_iter()
            .filter(|id| probes.iter().all(|probe| probe.webhook_id != *id))
            .collect();
        parking::look_again(conn, &idle).await?;
        Ok(probes)
    })
    .await
}

/// Searches the next [`parking::WINDOW`] of each webhook's parked events, from the first one again at their
/// end. The webhooks' rows are locked by the caller's transaction.
async fn probe(
    conn: &mut AsyncPgConnection,
    webhooks: &[Uuid],
    token: Uuid,
    deadline_seconds: f64,
) -> QueryResult<Vec<Claimed>> {
    Statement::new(concat!(
        "WITH chosen AS MATERIALIZED (
             SELECT coalesce(
                 (SELECT e.id FROM (
                      SELECT * FROM whatsapp_webhook_events
                      WHERE webhook_id = w.id AND status = 'pending' AND next_retry_at IS NULL
                        AND sequence > w.probed
                      ORDER BY sequence LIMIT ?) AS e
                  WHERE ",
        in_its_turn!(),
        " ORDER BY e.sequence LIMIT 1),
                 CASE WHEN ? > (
                     SELECT count(*) FROM (
                         SELECT FROM whatsapp_webhook_events
                         WHERE webhook_id = w.id AND status = 'pending' AND next_retry_at IS NULL
                           AND sequence > w.probed
                         LIMIT ?) AS rest)
                 THEN (SELECT e.id FROM (
                      SELECT * FROM whatsapp_webhook_events
                      WHERE webhook_id = w.id AND status = 'pending' AND next_retry_at IS NULL
                      ORDER BY sequence LIMIT ?) AS e
                  WHERE ",
        in_its_turn!(),
        " ORDER BY e.sequence LIMIT 1) END) AS id
             FROM whatsapp_webhooks w WHERE w.id = ANY(?)),
         picked AS MATERIALIZED (
             SELECT e.id, e.sequence, e.webhook_id, now() AS due
             FROM whatsapp_webhook_events e
             WHERE ",
        among!("chosen"),
        " AND e.status = 'pending' AND e.next_retry_at IS NULL
             FOR UPDATE OF e SKIP LOCKED),
         noted AS (
             UPDATE whatsapp_webhooks w
             SET probed = picked.sequence, look_at = now() + make_interval(secs => ?)
             FROM picked WHERE w.id = picked.webhook_id)
         UPDATE whatsapp_webhook_events e
         SET claim_token = ?, next_retry_at = now() + make_interval(secs => ?),
             claimed_until = now() + make_interval(secs => ?), parked = NULL
         FROM unnest(ARRAY(SELECT id FROM picked), ARRAY(SELECT due FROM picked)) AS picked (id, due),
             whatsapp_webhooks w
         WHERE e.id = picked.id AND w.id = e.webhook_id",
        returning_claimed!("true")
    ))
    .bind::<BigInt, _>(parking::WINDOW)
    .bind::<BigInt, _>(parking::WINDOW)
    .bind::<BigInt, _>(parking::WINDOW)
    .bind::<BigInt, _>(parking::WINDOW)
    .bind::<Array<SqlUuid>, _>(webhooks)
    .bind::<Double, _>(deadline_seconds)
    .bind::<SqlUuid, _>(token)
    .bind::<Double, _>(deadline_seconds)
    .bind::<Double, _>(deadline_seconds)
    .load(conn)
    .await
}

/// A claim that is given back without an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Release {
    pub event_id: Uuid,
    pub webhook_id: Uuid,
    pub token: Uuid,
    /// When it is due again; of a parked event, when its webhook's parked events are looked at.
    pub delay_seconds: f64,
    /// `None`: due again by itself.
    pub park: Option<Park>,
}

/// Where an event waits until its webhook's turn comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Park {
    pub reason: parking::Reason,
    /// How many of the webhook's parked events are to become due at a time.
    pub step: i32,
}

/// Gives claims back. One that is no longer held is left alone. Returns how many were given back.
pub async fn release(conn: &mut AsyncPgConnection, claims: &[Release]) -> QueryResult<usize> {
    if claims.iter().all(|claim| claim.park.is_none()) {
        return give_back(conn, claims).await.map(|webhooks| webhooks.len());
    }
    conn.transaction(async |conn| {
        let given_back = give_back(conn, claims).await?;
        let parked = claims
            .iter()
            .filter(|claim| given_back.contains(&claim.event_id));
        parking::look_soon(conn, parked).await?;
        Ok(given_back.len())
    })
    .await
}

/// The events that were given back.
async fn give_back(conn: &mut AsyncPgConnection, claims: &[Release]) -> QueryResult<HashSet<Uuid>> {
    let events = || claims.iter().map(|claim| claim.event_id);
    let (Some(least), Some(greatest)) = (events().min(), events().max()) else {
        return Ok(HashSet::new());
    };
    #[derive(QueryableByName)]
    struct GivenBack {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }
    let reason = |claim: &Release| claim.park.map(|park| park.reason.as_str());
    let rows: Vec<GivenBack> = Statement::new(
        "WITH input AS MATERIALIZED (
             SELECT * FROM unnest(?, ?, ?, ?) AS t (id, token, delay, parked)),
         held AS MATERIALIZED (
             SELECT e.id, input.delay, input.parked
             FROM whatsapp_webhook_events e JOIN input ON input.id = e.id
             WHERE e.claim_token = input.token AND e.id BETWEEN ? AND ?
             ORDER BY e.id FOR UPDATE OF e)
         UPDATE whatsapp_webhook_events e
         SET claim_token = NULL, claimed_until = NULL, parked = held.parked,
             next_retry_at = CASE WHEN held.parked IS NULL THEN now() + make_interval(secs => held.delay) END
         FROM unnest(ARRAY(SELECT id FROM held), ARRAY(SELECT delay FROM held), ARRAY(SELECT parked FROM held))
             AS held (id, delay, parked)
         WHERE e.id = held.id AND e.id BETWEEN ? AND ? AND e.status = 'pending'
         RETURNING e.id",
    )
    .bind::<Array<SqlUuid>, _>(events().collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(claims.iter().map(|c| c.token).collect::<Vec<_>>())
    .bind::<Array<Double>, _>(claims.iter().map(|c| c.delay_seconds).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(claims.iter().map(reason).collect::<Vec<_>>())
    .bind::<SqlUuid, _>(least)
    .bind::<SqlUuid, _>(greatest)
    .bind::<SqlUuid, _>(least)
    .bind::<SqlUuid, _>(greatest)
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}
