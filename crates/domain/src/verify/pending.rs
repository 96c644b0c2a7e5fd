//! The rules over what is pending, which its indexes answer.

use diesel::prelude::*;
use diesel::sql_types::Integer;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{OVERDUE_MINUTES, Seen};
use crate::statement::{Statement, unclaimed};

/// The parked events of webhooks that nobody is going to look at: what is parked and the look are
/// committed together. An inactive webhook is looked at when it is set active; a deleted one until all is
/// buried. Goes from one webhook with parked events to the next, however many there are of them.
const LOOKED: &str = "WITH RECURSIVE parked AS (
         (SELECT webhook_id FROM whatsapp_webhook_events
          WHERE status = 'pending' AND next_retry_at IS NULL ORDER BY webhook_id LIMIT 1)
         UNION ALL
         SELECT (SELECT e.webhook_id FROM whatsapp_webhook_events e
                 WHERE e.status = 'pending' AND e.next_retry_at IS NULL AND e.webhook_id > parked.webhook_id
                 ORDER BY e.webhook_id LIMIT 1)
         FROM parked WHERE parked.webhook_id IS NOT NULL),
     lost AS MATERIALIZED (
         SELECT e.id FROM parked
         LEFT JOIN whatsapp_webhooks w ON w.id = parked.webhook_id
         JOIN whatsapp_webhook_events e ON e.webhook_id = parked.webhook_id
         WHERE (w.id IS NULL OR ((w.is_active OR w.deleted_at IS NOT NULL) AND w.look_at IS NULL))
           AND e.status = 'pending' AND e.next_retry_at IS NULL)
     SELECT (SELECT count(webhook_id) FROM parked) AS checked, count(*) AS violations,
         (array_agg(id ORDER BY id))[1:10] AS ids, NULL::float8 AS oldest_seconds
     FROM lost";

/// Among the ten thousand that are overdue for the longest time, so that a backlog costs no more.
macro_rules! overdue {
    ($which:literal) => {
        concat!(
            "WITH late AS MATERIALIZED (
                 SELECT id, greatest(next_retry_at, claimed_until) AS since, claim_token
                 FROM whatsapp_webhook_events e
                 WHERE status = 'pending' AND next_retry_at < now() - make_interval(mins => ?) AND ",
            unclaimed!("e"),
            " ORDER BY next_retry_at LIMIT 10000)
             SELECT count(*) AS checked, count(*) AS violations,
                 (array_agg(id ORDER BY since))[1:10] AS ids,
                 extract(epoch FROM now() - min(since))::float8 AS oldest_seconds
             FROM late WHERE since < now() - make_interval(mins => ?) AND ",
            $which
        )
    };
}

const CLAIMS: &str = overdue!("claim_token IS NOT NULL");
const DUE: &str = overdue!("claim_token IS NULL");

fn overdue(statement: &'static str) -> Statement<'static> {
    Statement::new(statement)
        .bind::<Integer, _>(OVERDUE_MINUTES)
        .bind::<Integer, _>(OVERDUE_MINUTES)
}

#[derive(Clone, Copy)]
pub(super) enum Look {
    Looked,
    Claims,
    Due,
}

impl Look {
    pub(super) async fn check(self, conn: &mut AsyncPgConnection) -> QueryResult<Seen> {
        let statement = match self {
            Self::Looked => Statement::new(LOOKED),
            Self::Claims => overdue(CLAIMS),
            Self::Due => overdue(DUE),
        };
        statement.get_result(conn).await
    }
}
