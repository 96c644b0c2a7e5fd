//! Where events wait that can't go now, so that they cost the poller nothing, however many they are.
//!
//! A parked event is pending without a due time, and `parked` says why. Its webhook's `look_at` says when
//! somebody looks at what is parked: of an active webhook a number of events then become due, more from
//! step to step, so that a receiver that comes back isn't crushed; behind an open circuit one of them is
//! sent as a probe ([`crate::claim::claim_probes`]).
//!
//! No parked event is without a look to come, be it to bury it with a deleted webhook. Who parks locks the
//! event first, then its webhook, and sets `look_at`. Who finds nothing parked any more (also nothing that
//! another has locked, or that is not to go yet) has locked the webhook in a statement before, so that it
//! sees what was parked until then, and who parks later sets `look_at` anew.
//!
//! Whether anything is parked is asked with an `ORDER BY`. Without, PostgreSQL expects to meet one of many soon,
//! and reads whole partitions where there is none.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Double, Integer, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::claim::Release;
use crate::dead_letter;
use crate::statement::{Statement, among, unclaimed};

/// Why an event waits. The words stand in `parked`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The webhook is not active.
    Inactive,
    /// The webhook's circuit is open.
    CircuitOpen,
    /// There is more than its receiver takes for the moment.
    Backlog,
    /// The webhook's rate, or its client's, is used up.
    RateLimit,
    /// An earlier event of its chat comes first. It is not parked in full: see [`park_followers`].
    Order,
}

impl Reason {
    pub const ALL: [Self; 5] = [
        Self::Inactive,
        Self::CircuitOpen,
        Self::Backlog,
        Self::RateLimit,
        Self::Order,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::CircuitOpen => "circuit_open",
            Self::Backlog => "backlog",
            Self::RateLimit => "rate_limit",
            Self::Order => "order",
        }
    }
}

/// Which webhooks' turns to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Circuit {
    Closed,
    Open,
}

/// Between two steps of a release, in seconds.
const STEP: f64 = 0.25;
/// The largest step, in events.
const LARGEST_STEP: i32 = 2000;
/// How many of a webhook's parked events are searched for one to probe with, from behind the last.
pub(crate) const WINDOW: i64 = 200;
/// Where none of them could go, they are looked at again after this, in seconds.
const LOOK_AGAIN: f64 = 0.5;
/// What waits for its turn in a chat is looked at after this, in seconds, should nobody have called it.
const ORDER_LOOK: f64 = 300.0;

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

impl Count {
    fn rows(self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }
}

/// Locks the active webhooks, at most `limit`, at whose parked events it is time to look. One that is
/// locked by another is left to it.
pub(crate) async fn take_turns(
    conn: &mut AsyncPgConnection,
    circuit: Circuit,
    limit: i64,
) -> QueryResult<Vec<Uuid>> {
    let status = match circuit {
        Circuit::Closed => "active",
        Circuit::Open => "failed",
    };
    let rows: Vec<Id> = Statement::new(
        "SELECT id FROM whatsapp_webhooks
         WHERE look_at <= now() AND is_active AND deleted_at IS NULL AND status = ?
         ORDER BY look_at LIMIT ? FOR NO KEY UPDATE SKIP LOCKED",
    )
    .bind::<Text, _>(status)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Nothing of these could be sent: what is parked waits for its turn in a chat, or is locked by another,
/// and is looked at again soon, from behind the [`WINDOW`] that was seen. Of whom nothing is parked, nobody
/// needs to look at until something is. The rows are locked since before that was seen.
pub(crate) async fn look_again(
    conn: &mut AsyncPgConnection,
    webhooks: &[Uuid],
) -> QueryResult<usize> {
    if webhooks.is_empty() {
        return Ok(0);
    }
    Statement::new(
        "UPDATE whatsapp_webhooks w
         SET probed = coalesce((
                 SELECT max(sequence) FROM (
                     SELECT sequence FROM whatsapp_webhook_events
                     WHERE webhook_id = w.id AND status = 'pending' AND next_retry_at IS NULL
                       AND sequence > w.probed
                     ORDER BY sequence LIMIT ?) AS seen), 0),
             look_at = (
                 SELECT now() + make_interval(secs => ?) FROM whatsapp_webhook_events
                 WHERE webhook_id = w.id AND status = 'pending' AND next_retry_at IS NULL
                 ORDER BY sequence LIMIT 1)
         WHERE id = ANY(?)",
    )
    .bind::<BigInt, _>(WINDOW)
    .bind::<Double, _>(LOOK_AGAIN)
    .bind::<Array<SqlUuid>, _>(webhooks)
    .execute(conn)
    .await
}

/// Of a deleted webhook: what is parked is buried, now. The row is locked by the caller's transaction.
pub(crate) async fn look_now(conn: &mut AsyncPgConnection, webhook: Uuid) -> QueryResult<usize> {
    Statement::new("UPDATE whatsapp_webhooks SET look_at = now() WHERE id = ?")
        .bind::<SqlUuid, _>(webhook)
        .execute(conn)
        .await
}

/// Sets when to look at what has just been parked. A look that is to come before stays.
pub(crate) async fn look_soon(
    conn: &mut AsyncPgConnection,
    parked: impl Iterator<Item = &Release>,
) -> QueryResult<usize> {
    let mut looks: BTreeMap<Uuid, (f64, i32)> = BTreeMap::new();
    for release in parked {
        if let Some(park) = release.park {
            looks
                .entry(release.webhook_id)
                .and_modify(|(delay, _)| *delay = delay.min(release.delay_seconds))
                .or_insert((release.delay_seconds, park.step));
        }
    }
    if looks.is_empty() {
        return Ok(0);
    }
    Statement::new(
        "WITH input AS MATERIALIZED (
             SELECT * FROM unnest(?, ?, ?) AS t (id, delay, step)),
         locked AS MATERIALIZED (
             SELECT w.id, input.delay, input.step FROM whatsapp_webhooks w JOIN input ON input.id = w.id
             ORDER BY w.id FOR NO KEY UPDATE OF w)
         UPDATE whatsapp_webhooks w
         SET look_at = coalesce(w.look_at, now() + make_interval(secs => locked.delay)),
             release_step = greatest(locked.step, 1)
         FROM locked WHERE w.id = locked.id",
    )
    .bind::<Array<SqlUuid>, _>(looks.keys().copied().collect::<Vec<_>>())
    .bind::<Array<Double>, _>(looks.values().map(|look| look.0).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(looks.values().map(|look| look.1).collect::<Vec<_>>())
    .execute(conn)
    .await
}

/// Makes the next parked events due, of at most `limit` webhooks whose turn it is. Returns how many.
///
/// A step is twice as large as the one before, until what doesn't fit is parked again with the step that
/// its dispatcher expects to get through; of a webhook with a rate limit it is never larger than that.
/// What another has locked at the moment is left for the next step.
pub async fn release_parked(conn: &mut AsyncPgConnection, limit: i64) -> QueryResult<usize> {
    conn.transaction(async |conn| {
        let webhooks = take_turns(conn, Circuit::Closed, limit).await?;
        if webhooks.is_empty() {
            return Ok(0);
        }
        Statement::new(concat!(
            "WITH turns AS MATERIALIZED (
                 SELECT id, release_step,
                     least(release_step, ?, ceil(rate_limit_per_second * ?)::integer) AS step
                 FROM whatsapp_webhooks WHERE id = ANY(?)),
             picked AS MATERIALIZED (
                 SELECT e.id, e.webhook_id FROM turns, LATERAL (
                     SELECT id, webhook_id FROM whatsapp_webhook_events
                     WHERE webhook_id = turns.id AND status = 'pending' AND next_retry_at IS NULL
                     ORDER BY sequence LIMIT turns.step FOR UPDATE SKIP LOCKED) e),
             released AS (
                 UPDATE whatsapp_webhook_events e SET next_retry_at = now(), parked = NULL
                 WHERE ",
            among!("picked"),
            " RETURNING e.webhook_id),
             counts AS (SELECT webhook_id, count(*) AS count FROM released GROUP BY webhook_id),
             noted AS (
                 UPDATE whatsapp_webhooks w
                 SET look_at = CASE
                         WHEN counts.count > 0 OR (
                             SELECT true FROM whatsapp_webhook_events
                             WHERE webhook_id = turns.id AND status = 'pending' AND next_retry_at IS NULL
                             ORDER BY sequence LIMIT 1) THEN now() + make_interval(secs => ?)
                     END,
                     release_step = 2 * least(turns.release_step, ? / 2)
                 FROM turns LEFT JOIN counts ON counts.webhook_id = turns.id
                 WHERE w.id = turns.id)
             SELECT coalesce(sum(count), 0)::bigint AS count FROM counts"
        ))
        .bind::<Integer, _>(LARGEST_STEP)
        .bind::<Double, _>(STEP)
        .bind::<Array<SqlUuid>, _>(&webhooks)
        .bind::<Double, _>(STEP)
        .bind::<Integer, _>(LARGEST_STEP)
        .get_result::<Count>(conn)
        .await
        .map(Count::rows)
    })
    .await
}

/// Takes due events whose webhook takes no deliveries out of the poller's way: those of a deleted
/// webhook become dead letters, those of an inactive one, or behind an open circuit, are parked. To be
/// called when [`claim_due`](crate::claim::claim_due) claims less than its limit: it looks at the same
/// `limit` oldest.
///
/// The webhook rows are locked, so that an activation cannot run between the look and the parking; one
/// that is locked by another is left for the next time, since a wait for a recorder could be a deadlock.
/// Returns how many events were set aside. What is parked of deleted webhooks is buried along the way.
pub async fn set_aside(conn: &mut AsyncPgConnection, limit: i64) -> QueryResult<usize> {
    let aside = set_due_aside(conn, limit).await?;
    Ok(aside + bury_parked(conn, limit).await?)
}

async fn set_due_aside(conn: &mut AsyncPgConnection, limit: i64) -> QueryResult<usize> {
    Statement::new(concat!(
        "WITH due AS MATERIALIZED (
             SELECT id, webhook_id FROM whatsapp_webhook_events e
             WHERE status = 'pending' AND next_retry_at <= now() AND ",
        unclaimed!("e"),
        " ORDER BY next_retry_at LIMIT ?),
         closed AS MATERIALIZED (
             SELECT id, deleted_at, is_active FROM whatsapp_webhooks
             WHERE id IN (SELECT webhook_id FROM due)
               AND (NOT is_active OR deleted_at IS NOT NULL OR status = 'failed')
             FOR NO KEY UPDATE SKIP LOCKED),
         refused AS MATERIALIZED (SELECT due.id FROM due JOIN closed ON closed.id = due.webhook_id),
         picked AS MATERIALIZED (
             SELECT e.id FROM whatsapp_webhook_events e
             WHERE ",
        among!("refused"),
        " AND e.status = 'pending' AND e.next_retry_at <= now() AND ",
        unclaimed!("e"),
        " FOR UPDATE OF e SKIP LOCKED),
         aside AS (
             UPDATE whatsapp_webhook_events e
             SET claim_token = NULL, claimed_until = NULL, next_retry_at = NULL,
                 (status, error, parked) = (
                     SELECT CASE WHEN deleted_at IS NULL THEN e.status ELSE 'failed' END,
                         CASE WHEN deleted_at IS NULL THEN e.error ELSE ? END,
                         CASE WHEN deleted_at IS NULL THEN CASE WHEN is_active THEN ? ELSE ? END END
                     FROM closed WHERE closed.id = e.webhook_id)
             WHERE ",
        among!("picked"),
        " RETURNING e.*, error AS reason),
         noted AS (
             UPDATE whatsapp_webhooks w SET look_at = coalesce(w.look_at, now())
             FROM closed
             WHERE w.id = closed.id AND w.id IN (SELECT webhook_id FROM aside WHERE status = 'pending')),
         buried AS (SELECT * FROM aside WHERE status = 'failed'),
         letters AS (",
        dead_letter::insert_from!("buried"),
        ") SELECT count(*) AS count FROM aside"
    ))
    .bind::<BigInt, _>(limit)
    .bind::<Text, _>(dead_letter::WEBHOOK_DELETED)
    .bind::<Text, _>(Reason::CircuitOpen.as_str())
    .bind::<Text, _>(Reason::Inactive.as_str())
    .get_result::<Count>(conn)
    .await
    .map(Count::rows)
}

/// Turns at most `limit` parked events of a deleted webhook into dead letters: those that were too many to
/// bury when it was deleted, and those that somebody was about to park at that moment.
async fn bury_parked(conn: &mut AsyncPgConnection, limit: i64) -> QueryResult<usize> {
    let found: Option<Id> = Statement::new(
        "SELECT id FROM whatsapp_webhooks
         WHERE look_at <= now() AND deleted_at IS NOT NULL ORDER BY look_at LIMIT 1",
    )
    .get_result(conn)
    .await
    .optional()?;
    let Some(Id { id }) = found else {
        return Ok(0);
    };
    conn.transaction(async |conn| {
        let locked: Option<Id> = Statement::new(
            "SELECT id FROM whatsapp_webhooks
             WHERE id = ? AND look_at <= now() FOR NO KEY UPDATE SKIP LOCKED",
        )
        .bind::<SqlUuid, _>(id)
        .get_result(conn)
        .await
        .optional()?;
        if locked.is_none() {
            return Ok(0);
        }
        let buried =
            dead_letter::bury_pending(conn, id, dead_letter::WEBHOOK_DELETED, limit).await?;
        look_again(conn, &[id]).await?;
        Ok(buried)
    })
    .await
}

/// Takes due events out of the poller's way that must wait for an earlier one of their chat, among the
/// same `limit` oldest as [`set_aside`]. They are called when that one is through
/// ([`call_next`]), and looked at after some minutes in any case.
///
/// The first event of the chat is share-locked: its outcome is recorded either before, and then nothing
/// waits for it, or after, and then what waits is called.
pub async fn park_followers(conn: &mut AsyncPgConnection, limit: i64) -> QueryResult<usize> {
    Statement::new(concat!(
        "WITH due AS MATERIALIZED (
             SELECT id, webhook_id, order_key, sequence FROM whatsapp_webhook_events e
             WHERE status = 'pending' AND next_retry_at <= now() AND ",
        unclaimed!("e"),
        " ORDER BY next_retry_at LIMIT ?),
         chats AS MATERIALIZED (
             SELECT DISTINCT due.webhook_id, due.order_key FROM due
             JOIN whatsapp_webhooks w ON w.id = due.webhook_id AND w.ordered AND w.deleted_at IS NULL
             WHERE due.order_key IS NOT NULL),
         firsts AS MATERIALIZED (
             SELECT first.id FROM chats, LATERAL (
                 SELECT id FROM whatsapp_webhook_events
                 WHERE webhook_id = chats.webhook_id AND order_key = chats.order_key AND status = 'pending'
                 ORDER BY sequence LIMIT 1) first),
         locked AS MATERIALIZED (
             SELECT e.webhook_id, e.order_key, e.sequence
             FROM whatsapp_webhook_events e
             WHERE ",
        among!("firsts"),
        " AND e.status = 'pending'
             FOR SHARE OF e SKIP LOCKED),
         followers AS MATERIALIZED (
             SELECT due.id FROM due
             JOIN locked ON locked.webhook_id = due.webhook_id AND locked.order_key = due.order_key
             WHERE due.sequence > locked.sequence),
         picked AS MATERIALIZED (
             SELECT e.id FROM whatsapp_webhook_events e
             WHERE ",
        among!("followers"),
        " AND e.status = 'pending' AND e.next_retry_at <= now() AND ",
        unclaimed!("e"),
        " FOR UPDATE OF e SKIP LOCKED)
         UPDATE whatsapp_webhook_events e
         SET claim_token = NULL, claimed_until = NULL, next_retry_at = now() + make_interval(secs => ?), parked = ?
         WHERE ",
        among!("picked")
    ))
    .bind::<BigInt, _>(limit)
    .bind::<Double, _>(ORDER_LOOK)
    .bind::<Text, _>(Reason::Order.as_str())
    .execute(conn)
    .await
}

/// Makes the first waiting event of each chat due, given as (webhook, order key), where it waited for the
/// one that is through. Returns these events.
///
/// Another of the chat may be in flight, after a requeue: whoever records that one may look at the same
/// moment and not see that this one is through, so each of them calls.
pub(crate) async fn call_next(
    conn: &mut AsyncPgConnection,
    chats: &[(Uuid, String)],
) -> QueryResult<Vec<Uuid>> {
    if chats.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Id> = Statement::new(concat!(
        "WITH chats AS MATERIALIZED (
             SELECT DISTINCT * FROM unnest(?, ?) AS t (webhook_id, order_key)),
         firsts AS MATERIALIZED (
             SELECT first.id FROM chats, LATERAL (
                 SELECT id FROM whatsapp_webhook_events
                 WHERE webhook_id = chats.webhook_id AND order_key = chats.order_key AND status = 'pending'
                   AND claim_token IS NULL
                 ORDER BY sequence LIMIT 1) first),
         locked AS MATERIALIZED (
             SELECT e.id FROM whatsapp_webhook_events e
             WHERE ",
        among!("firsts"),
        " AND e.status = 'pending' AND e.claim_token IS NULL AND e.next_retry_at IS NOT NULL
               AND (e.parked = ? OR e.attempt_count = 0)
             ORDER BY e.id FOR UPDATE OF e)
         UPDATE whatsapp_webhook_events e SET next_retry_at = now(), parked = NULL
         WHERE ",
        among!("locked"),
        " RETURNING e.id"
    ))
    .bind::<Array<SqlUuid>, _>(chats.iter().map(|chat| chat.0).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(chats.iter().map(|chat| chat.1.as_str()).collect::<Vec<_>>())
    .bind::<Text, _>(Reason::Order.as_str())
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Makes what waits for its turn in any of the webhook's chats due: it wants no order any more. The rest
/// of very many are looked at by themselves. The webhook is locked by the caller's transaction.
pub(crate) async fn call_all(conn: &mut AsyncPgConnection, webhook: Uuid) -> QueryResult<usize> {
    Statement::new(concat!(
        "WITH picked AS MATERIALIZED (
             SELECT id FROM whatsapp_webhook_events
             WHERE webhook_id = ? AND status = 'pending' AND order_key IS NOT NULL
               AND next_retry_at IS NOT NULL AND parked = ?
             LIMIT ? FOR UPDATE SKIP LOCKED)
         UPDATE whatsapp_webhook_events e SET next_retry_at = now(), parked = NULL
         WHERE ",
        among!("picked")
    ))
    .bind::<SqlUuid, _>(webhook)
    .bind::<Text, _>(Reason::Order.as_str())
    .bind::<Integer, _>(LARGEST_STEP)
    .execute(conn)
    .await
}

/// Where the webhook's circuit is open, makes an event the next probe, at once. The event is locked by the
/// caller's transaction.
pub(crate) async fn probe_next(
    conn: &mut AsyncPgConnection,
    webhook: Uuid,
    event: Uuid,
    sequence: i64,
) -> QueryResult<usize> {
    Statement::new(
        "WITH open AS (
             UPDATE whatsapp_webhooks SET look_at = now(), probed = ? - 1
             WHERE id = ? AND status = 'failed' AND is_active AND deleted_at IS NULL
             RETURNING id)
         UPDATE whatsapp_webhook_events e SET next_retry_at = NULL, parked = ?
         FROM open WHERE e.id = ? AND e.webhook_id = open.id",
    )
    .bind::<BigInt, _>(sequence)
    .bind::<SqlUuid, _>(webhook)
    .bind::<Text, _>(Reason::CircuitOpen.as_str())
    .bind::<SqlUuid, _>(event)
    .execute(conn)
    .await
}
