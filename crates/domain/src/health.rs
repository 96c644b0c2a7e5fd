//! A webhook's health and its circuit: consecutive failures open it, probes go out with growing pauses,
//! one success closes it, and after days it is given up. Written once per batch of outcomes.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::event_type::EventType;
use crate::ids;
use crate::inbox::{self, WebhookNotice};
use crate::record::{Outcome, Record};
use crate::statement::Statement;

/// Consecutive failures that open a webhook's circuit.
pub const FAILURES_UNTIL_FAILED: i32 = 5;
/// The pause before the first probe, in seconds; it doubles from one to the next.
const FIRST_PAUSE: f64 = 5.0;
const LONGEST_PAUSE: f64 = 600.0;
/// A webhook whose circuit has been open for so long is deactivated, in days.
const DAYS_UNTIL_DEACTIVATED: i32 = 5;
/// And so many probes have failed before: where there was nothing to send, nothing was asked.
const PROBES_UNTIL_DEACTIVATED: i32 = 5;

/// What a batch says of one webhook.
#[derive(Debug, Clone, PartialEq)]
struct Health<'a> {
    /// Something was delivered: failures before that no longer count.
    succeeded: bool,
    /// Requests that failed since the last success in the batch.
    failures: i32,
    last_error: Option<&'a str>,
    last_attempt_at: DateTime<Utc>,
    gone: bool,
    probe_failed: bool,
    /// Seconds for which its receiver wants nothing more, since the last success.
    leave_alone: f64,
}

/// In the order of the batch, by webhook (and in their order, so that two writers cannot deadlock).
fn health<'a>(batch: impl Iterator<Item = &'a Record>) -> BTreeMap<Uuid, Health<'a>> {
    let mut map: BTreeMap<Uuid, Health<'_>> = BTreeMap::new();
    let mut batches = HashSet::new();
    for record in batch {
        let health = map.entry(record.webhook_id).or_insert(Health {
            succeeded: false,
            failures: 0,
            last_error: None,
            last_attempt_at: record.started_at,
            gone: false,
            probe_failed: false,
            leave_alone: 0.0,
        });
        health.last_attempt_at = health.last_attempt_at.max(record.started_at);
        if record.outcome == Outcome::Delivered {
            health.succeeded = true;
            health.failures = 0;
            health.last_error = None;
            health.leave_alone = 0.0;
            continue;
        }
        // The events of one request fail together.
        if record.batch_id.is_none_or(|id| batches.insert(id)) {
            health.failures = health.failures.saturating_add(1);
        }
        health.last_error = record.error.as_deref();
        health.leave_alone = health.leave_alone.max(record.leave_alone);
        match &record.outcome {
            Outcome::ProbeFailed => health.probe_failed = true,
            Outcome::Dead { gone, .. } => health.gone |= gone,
            Outcome::Delivered | Outcome::RetryIn(_) => {}
        }
    }
    map
}

/// What became of a webhook, where that is news.
#[derive(QueryableByName)]
struct Changed {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Integer)]
    client_id: i32,
    #[diesel(sql_type = Text)]
    phone_number: String,
    #[diesel(sql_type = Bool)]
    opened: bool,
    #[diesel(sql_type = Bool)]
    closed: bool,
    #[diesel(sql_type = Bool)]
    deactivated: bool,
    /// After these changes.
    #[diesel(sql_type = BigInt)]
    transition: i64,
    #[diesel(sql_type = Integer)]
    failure_count: i32,
    #[diesel(sql_type = Nullable<Text>)]
    last_error: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    at: DateTime<Utc>,
}

/// Writes what the attempts say of their webhooks, and tells the clients' other webhooks of what has
/// changed. Returns the events that this became.
pub(crate) async fn write<'a>(
    conn: &mut AsyncPgConnection,
    attempts: impl Iterator<Item = &'a Record>,
) -> QueryResult<Vec<Uuid>> {
    let health = health(attempts);
    if health.is_empty() {
        return Ok(Vec::new());
    }
    let mut events = Vec::new();
    for changed in update(conn, &health).await? {
        events.extend(tell(conn, &changed).await?);
    }
    Ok(events)
}

/// Closes a webhook's circuit by hand, and lets what is parked flow.
pub(crate) async fn forget(conn: &mut AsyncPgConnection, webhook: Uuid) -> QueryResult<usize> {
    Statement::new(
        "UPDATE whatsapp_webhooks
         SET opened_at = NULL, probes = 0, look_at = now(), release_step = max_in_flight WHERE id = ?",
    )
    .bind::<SqlUuid, _>(webhook)
    .execute(conn)
    .await
}

/// Counts from the locked row: as the statement's snapshot has it, another's failures would be missing. One
/// more success of a webhook that is well is written once a second: with a thousand of them in a batch the
/// rows of webhooks would cost more than those of events.
async fn update(
    conn: &mut AsyncPgConnection,
    health: &BTreeMap<Uuid, Health<'_>>,
) -> QueryResult<Vec<Changed>> {
    Statement::new(
        "WITH input AS MATERIALIZED (
             SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?)
                 AS t (id, succeeded, failures, last_error, last_attempt_at, gone, probe_failed, leave_alone)),
         locked AS MATERIALIZED (
             SELECT input.*, w.status = 'failed' AS was_open, w.is_active AS was_active,
                 input.failures + CASE WHEN input.succeeded THEN 0 ELSE w.failure_count END AS counted,
                 w.opened_at <= now() - make_interval(days => ?) AS long_open, w.probes
             FROM whatsapp_webhooks w JOIN input ON input.id = w.id
             WHERE NOT (input.succeeded AND input.failures = 0 AND w.status = 'active' AND w.failure_count = 0
                 AND coalesce(w.last_success_at > now() - interval '1 second', false))
             ORDER BY w.id FOR NO KEY UPDATE OF w),
         judged AS MATERIALIZED (
             SELECT locked.*, counted >= ? OR (was_open AND NOT succeeded) AS is_open,
                 (gone OR (was_open AND long_open AND NOT succeeded AND failures > 0 AND probes >= ?))
                     AND was_active AS deactivated
             FROM locked)
         UPDATE whatsapp_webhooks w
         SET failure_count = j.counted,
             status = CASE WHEN j.is_open THEN 'failed' ELSE 'active' END,
             last_error = CASE WHEN j.failures > 0 THEN j.last_error ELSE w.last_error END,
             last_success_at = CASE WHEN j.succeeded THEN now() ELSE w.last_success_at END,
             last_attempt_at = greatest(w.last_attempt_at, j.last_attempt_at),
             is_active = w.is_active AND NOT j.deactivated,
             opened_at = CASE WHEN NOT j.is_open THEN NULL
                              WHEN j.was_open AND NOT j.succeeded THEN w.opened_at ELSE now() END,
             probes = CASE WHEN NOT (j.is_open AND j.was_open) THEN 0
                           WHEN j.probe_failed THEN w.probes + 1 ELSE w.probes END,
             look_at = CASE
                 WHEN j.was_open AND NOT j.is_open THEN now()
                 WHEN j.is_open AND (j.probe_failed OR NOT j.was_open) THEN
                     now() + make_interval(secs => greatest(j.leave_alone,
                         least(?, ? * 2 ^ CASE WHEN j.was_open THEN least(w.probes + 1, 30) ELSE 0 END)
                             * (0.9 + 0.2 * random())))
                 WHEN j.probe_failed THEN coalesce(w.look_at, now())
                 ELSE w.look_at END,
             release_step = CASE WHEN j.was_open AND NOT j.is_open THEN w.max_in_flight ELSE w.release_step END,
             transition = w.transition + (j.was_open <> j.is_open)::integer + j.deactivated::integer
         FROM judged j
         WHERE w.id = j.id
         RETURNING w.id, w.client_id, w.phone_number, j.is_open AND NOT j.was_open AS opened,
             j.was_open AND NOT j.is_open AS closed, j.deactivated, w.transition, w.failure_count,
             w.last_error, now() AS at",
    )
    .bind::<Array<SqlUuid>, _>(health.keys().copied().collect::<Vec<_>>())
    .bind::<Array<Bool>, _>(health.values().map(|h| h.succeeded).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(health.values().map(|h| h.failures).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(health.values().map(|h| h.last_error).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(health.values().map(|h| h.last_attempt_at).collect::<Vec<_>>())
    .bind::<Array<Bool>, _>(health.values().map(|h| h.gone).collect::<Vec<_>>())
    .bind::<Array<Bool>, _>(health.values().map(|h| h.probe_failed).collect::<Vec<_>>())
    .bind::<Array<Double>, _>(health.values().map(|h| h.leave_alone).collect::<Vec<_>>())
    .bind::<Integer, _>(DAYS_UNTIL_DEACTIVATED)
    .bind::<Integer, _>(FAILURES_UNTIL_FAILED)
    .bind::<Integer, _>(PROBES_UNTIL_DEACTIVATED)
    .bind::<Double, _>(LONGEST_PAUSE)
    .bind::<Double, _>(FIRST_PAUSE)
    .load(conn)
    .await
}

async fn tell(conn: &mut AsyncPgConnection, changed: &Changed) -> QueryResult<Vec<Uuid>> {
    let news = [
        (changed.opened, EventType::WebhookFailing),
        (changed.closed, EventType::WebhookRecovered),
        (changed.deactivated, EventType::WebhookDeactivated),
    ];
    let happened: Vec<EventType> = news
        .into_iter()
        .filter_map(|(is_so, event)| is_so.then_some(event))
        .collect();
    let mut events = Vec::new();
    let numbers = changed.transition - happened.len() as i64 + 1..;
    for (event_type, number) in happened.into_iter().zip(numbers) {
        let metadata = serde_json::json!({
            "v": 1,
            "webhook_id": changed.id,
            "failure_count": changed.failure_count,
            "last_error": changed.last_error,
        });
        let notice = WebhookNotice {
            client_id: changed.client_id,
            webhook_id: changed.id,
            phone_number: changed.phone_number.clone(),
            event_type,
            source_id: ids::transition(changed.id, number, changed.at),
            metadata: metadata.to_string(),
            at: changed.at,
        };
        events.extend(inbox::announce_webhook(conn, &notice).await?);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            2 => Just(Outcome::Delivered),
            3 => (0.0..1000.0).prop_map(Outcome::RetryIn),
            2 => any::<bool>().prop_map(|gone| Outcome::Dead { reason: "dead".to_owned(), gone }),
            1 => Just(Outcome::ProbeFailed),
        ]
    }

    /// Its webhook, how it ended, its batch, the second of its start.
    type Attempt = (u128, Outcome, Option<u128>, i64);

    /// Attempts of three webhooks; those of one batch end alike, as one request does.
    fn records() -> impl Strategy<Value = Vec<Record>> {
        let attempt = (
            0..3_u128,
            outcome(),
            prop::option::weighted(0.3, 0..4_u128),
            0..100_i64,
        );
        prop::collection::vec(attempt, 0..40).prop_map(|attempts| {
            let mut ends: BTreeMap<Uuid, Outcome> = BTreeMap::new();
            let mut record = |(place, (webhook, outcome, batch, second)): (usize, Attempt)| {
                let batch_id = batch.map(|batch| Uuid::from_u128(webhook << 8 | batch));
                let outcome = match batch_id {
                    Some(id) => ends.entry(id).or_insert(outcome).clone(),
                    None => outcome,
                };
                Record {
                    attempt_id: Uuid::from_u128(place as u128),
                    event_id: Uuid::from_u128(place as u128),
                    client_id: 1,
                    webhook_id: Uuid::from_u128(webhook),
                    token: Uuid::nil(),
                    attempt: 1,
                    batch_id,
                    probe: false,
                    started_at: DateTime::from_timestamp(second, 0).unwrap(),
                    duration_ms: 1,
                    http_status: None,
                    error_class: None,
                    error: (outcome != Outcome::Delivered).then(|| format!("error {place}")),
                    response: None,
                    leave_alone: 0.0,
                    outcome,
                }
            };
            attempts.into_iter().enumerate().map(&mut record).collect()
        })
    }

    proptest! {
        #[test]
        fn each_webhook_is_judged_by_its_own_attempts_alone(records in records()) {
            let together = health(records.iter());
            for webhook in (0..3).map(Uuid::from_u128) {
                let own = records.iter().filter(|record| record.webhook_id == webhook);
                let alone = health(own);
                prop_assert_eq!(together.get(&webhook), alone.get(&webhook));
            }
        }

        #[test]
        fn failures_are_the_requests_since_the_last_success(records in records()) {
            for (webhook, judged) in health(records.iter()) {
                let own: Vec<&Record> = records.iter().filter(|r| r.webhook_id == webhook).collect();
                let success = own.iter().rposition(|r| r.outcome == Outcome::Delivered);
                prop_assert_eq!(judged.succeeded, success.is_some());
                let since = &own[success.map_or(0, |place| place + 1)..];
                // A request counts where its first event stands.
                let begins = |record: &&&Record| record.batch_id.is_none() || {
                    let first = own.iter().find(|other| other.batch_id == record.batch_id);
                    first.is_some_and(|first| first.attempt_id == record.attempt_id)
                };
                prop_assert_eq!(judged.failures as usize, since.iter().filter(begins).count());
                prop_assert_eq!(judged.last_error, since.last().and_then(|r| r.error.as_deref()));
                prop_assert_eq!(Some(judged.last_attempt_at), own.iter().map(|r| r.started_at).max());
                let gone = own.iter().any(|r| matches!(r.outcome, Outcome::Dead { gone: true, .. }));
                prop_assert_eq!(judged.gone, gone);
            }
        }

        /// Recorders divide attempts among batches as it happens: the count of failures comes out the same.
        #[test]
        fn two_batches_one_after_the_other_count_as_one_does(records in records(), cut in 0..40_usize) {
            let mut records = records;
            for record in &mut records {
                record.batch_id = None;
            }
            let (one, two) = records.split_at(cut.min(records.len()));
            let (first, second, both) = (health(one.iter()), health(two.iter()), health(records.iter()));
            for (webhook, both) in both {
                let first = first.get(&webhook).map_or(0, |judged| judged.failures);
                let (reset, failures) = second
                    .get(&webhook)
                    .map_or((false, 0), |judged| (judged.succeeded, judged.failures));
                prop_assert_eq!(both.failures, failures + if reset { 0 } else { first });
            }
        }
    }
}
