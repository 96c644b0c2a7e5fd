//! Dead letters: delivered again, or deleted.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::Error::RollbackTransaction;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::events::requeue;
use super::{Id, ROWS, Step, bounds, done, look, undone};
use crate::parking::Reason;
use crate::span::Span;
use crate::statement::{Statement, among};

/// Walks over a webhook's dead letters, oldest first.
#[derive(Debug)]
struct Walk {
    client_id: i32,
    webhook_id: Uuid,
    span: Span,
    /// Behind this one.
    after: Option<(DateTime<Utc>, Uuid)>,
    tries: u32,
}

#[derive(QueryableByName)]
struct Letter {
    #[diesel(sql_type = SqlUuid)]
    event_id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
}

impl Walk {
    /// Over those that there are by now: an event that is replayed and fails again at once is not met a
    /// second time.
    async fn begin(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
        span: Span,
    ) -> QueryResult<Self> {
        #[derive(QueryableByName)]
        struct End {
            #[diesel(sql_type = Timestamptz)]
            until: DateTime<Utc>,
        }
        let end: End = Statement::new("SELECT least(now(), coalesce(?, 'infinity')) AS until")
            .bind::<Nullable<Timestamptz>, _>(span.until)
            .get_result(conn)
            .await?;
        Ok(Self {
            client_id,
            webhook_id,
            span: Span {
                until: Some(end.until),
                ..span
            },
            after: None,
            tries: 0,
        })
    }

    async fn next(&self, conn: &mut AsyncPgConnection) -> QueryResult<Vec<Letter>> {
        let (at, id) = self.after.unzip();
        Statement::new(
            "SELECT event_id, created_at FROM whatsapp_dead_letters
             WHERE webhook_id = ? AND client_id = ?
               AND created_at >= coalesce(?, '-infinity') AND created_at < coalesce(?, 'infinity')
               AND (created_at, event_id) > (coalesce(?, '-infinity'),
                    coalesce(?, '00000000-0000-0000-0000-000000000000'::uuid))
             ORDER BY created_at, event_id LIMIT ?",
        )
        .bind::<SqlUuid, _>(self.webhook_id)
        .bind::<Integer, _>(self.client_id)
        .bind::<Nullable<Timestamptz>, _>(self.span.since)
        .bind::<Nullable<Timestamptz>, _>(self.span.until)
        .bind::<Nullable<Timestamptz>, _>(at)
        .bind::<Nullable<SqlUuid>, _>(id)
        .bind::<BigInt, _>(ROWS)
        .load(conn)
        .await
    }

    fn stepped(&mut self, letters: &[Letter], count: usize) -> Step {
        let step = done(letters.len(), count, &mut self.tries);
        if let Step::Done(_) = step {
            self.after = letters.last().map(|last| (last.created_at, last.event_id));
        }
        step
    }
}

/// Requeues the events of a webhook's dead letters; one whose row is gone is inserted anew, under its id.
#[derive(Debug)]
pub struct Letters(Walk);

impl Letters {
    pub async fn begin(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
        span: Span,
    ) -> QueryResult<Self> {
        Walk::begin(conn, client_id, webhook_id, span)
            .await
            .map(Self)
    }

    pub async fn step(&mut self, conn: &mut AsyncPgConnection) -> QueryResult<Step> {
        let letters = self.0.next(conn).await?;
        if letters.is_empty() {
            return Ok(Step::End);
        }
        let ids: Vec<Uuid> = letters.iter().map(|letter| letter.event_id).collect();
        let webhook = self.0.webhook_id;
        let replayed = conn
            .transaction(async |conn| {
                let requeued = requeue(conn, &ids, &["failed"]).await?.len();
                let inserted = insert_anew(conn, &ids).await?;
                match look(conn, webhook).await? {
                    true => Ok(requeued + inserted),
                    false => Err(RollbackTransaction),
                }
            })
            .await;
        match undone(replayed)? {
            None => Ok(Step::NoReceiver),
            Some(count) => Ok(self.0.stepped(&letters, count)),
        }
    }
}

/// Deletes a webhook's dead letters, and notes at their events that this was wanted.
#[derive(Debug)]
pub struct Deletion(Walk);

impl Deletion {
    pub async fn begin(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
    ) -> QueryResult<Self> {
        Walk::begin(conn, client_id, webhook_id, Span::default())
            .await
            .map(Self)
    }

    pub async fn step(&mut self, conn: &mut AsyncPgConnection) -> QueryResult<Step> {
        let letters = self.0.next(conn).await?;
        if letters.is_empty() {
            return Ok(Step::End);
        }
        let ids: Vec<Uuid> = letters.iter().map(|letter| letter.event_id).collect();
        let count = delete(conn, &ids).await?;
        Ok(self.0.stepped(&letters, count))
    }
}

/// Those of which there is no event any more.
async fn insert_anew(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<usize> {
    let gone = gone(conn, ids).await?;
    if gone.is_empty() {
        return Ok(0);
    }
    let rows: Vec<Id> = Statement::new(
        r#"WITH letters AS MATERIALIZED (
               SELECT d.*, w.ordered FROM whatsapp_dead_letters d JOIN whatsapp_webhooks w ON w.id = d.webhook_id
               WHERE d.event_id = ANY(?) ORDER BY d.event_id FOR UPDATE OF d SKIP LOCKED),
           inserted AS (
               INSERT INTO whatsapp_webhook_events (id, client_id, webhook_id, connection_id, source_id,
                   event_type, message_id, chat, "from", "to", message_type, content, metadata, "timestamp",
                   order_key, parked)
               SELECT event_id, client_id, webhook_id, connection_id, source_id,
                   event_type, message_id, chat, "from", "to", message_type, content, metadata, "timestamp",
                   CASE WHEN ordered AND chat <> '' THEN chat END, ?
               FROM letters ORDER BY created_at, event_id
               ON CONFLICT DO NOTHING
               RETURNING id),
           forgotten AS (
               DELETE FROM whatsapp_dead_letters WHERE event_id = ANY(ARRAY(SELECT id FROM inserted)))
           SELECT id FROM inserted"#,
    )
    .bind::<Array<SqlUuid>, _>(gone)
    .bind::<Text, _>(Reason::Backlog.as_str())
    .load(conn)
    .await?;
    Ok(rows.len())
}

/// Of which of these there is no event.
async fn gone(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<Vec<Uuid>> {
    let Some((least, greatest)) = bounds(ids) else {
        return Ok(Vec::new());
    };
    let there: Vec<Id> = Statement::new(
        "SELECT id FROM whatsapp_webhook_events WHERE id = ANY(?) AND id BETWEEN ? AND ?",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<SqlUuid, _>(least)
    .bind::<SqlUuid, _>(greatest)
    .load(conn)
    .await?;
    let there: HashSet<Uuid> = there.into_iter().map(|row| row.id).collect();
    let gone = ids.iter().filter(|id| !there.contains(id));
    Ok(gone.copied().collect())
}

/// The events are locked first, as whoever requeues one locks it before its dead letter.
async fn delete(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<usize> {
    let Some((least, greatest)) = bounds(ids) else {
        return Ok(0);
    };
    conn.transaction(async |conn| {
        let noted: Vec<Id> = Statement::new(concat!(
            "WITH picked AS MATERIALIZED (
                 SELECT id FROM whatsapp_webhook_events
                 WHERE id = ANY(?) AND id BETWEEN ? AND ? AND status = 'failed'
                 ORDER BY id FOR UPDATE SKIP LOCKED)
             UPDATE whatsapp_webhook_events e SET dead_letter_deleted_at = now()
             WHERE ",
            among!("picked"),
            " RETURNING e.id"
        ))
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<SqlUuid, _>(least)
        .bind::<SqlUuid, _>(greatest)
        .load(conn)
        .await?;
        let mut letters = gone(conn, ids).await?;
        letters.extend(noted.into_iter().map(|row| row.id));
        Statement::new("DELETE FROM whatsapp_dead_letters WHERE event_id = ANY(?)")
            .bind::<Array<SqlUuid>, _>(letters)
            .execute(conn)
            .await
    })
    .await
}
