//! A webhook's events by the order of their commit, newest first: all of them, or those that a filter lets through.
//! A page is a walk of indexes that ends when the page is full, whatever the filter and however far behind.

use std::str::FromStr;

use chrono::TimeDelta;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{Event, Range};
use crate::event_type::EventType;
use crate::ids;
use crate::span::{self, Span};
use crate::statement::Statement;

/// Which of a webhook's events.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub status: Option<Status>,
    /// WhatsApp's. By it an event is found as long as its message is kept.
    pub message_id: Option<String>,
    /// When they were committed.
    pub span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Pending,
    Delivered,
    Failed,
}

impl Status {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for Status {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or("must be pending, delivered or failed")
    }
}

/// Counting stops here: a total beyond it says no more than that there are many.
pub const TOTAL_CAP: i64 = 10_000;

/// By how much the times of two commits may differ from what their sequences say: a transaction's time is that of its
/// begin, seconds before.
const SLACK: TimeDelta = TimeDelta::minutes(1);

/// The events of a filter, from one end of a range to the other. A client that has no such webhook has no events of it.
#[derive(Debug)]
pub struct List {
    client_id: i32,
    webhook_id: Uuid,
    statuses: Vec<&'static str>,
    span: Span,
    range: Range,
    /// Of the only events that come into question, if the filter names a message.
    ids: Option<Vec<Uuid>>,
}

/// A query over `e`, each for one kind of list: the newest events of each status, without and with a span of time, or
/// a message's. Without a time, an index alone is enough to count.
struct Texts {
    newest: &'static str,
    dated: &'static str,
    of_message: &'static str,
}

macro_rules! over {
    ($head:literal, $columns:literal, $tail:literal) => {
        Texts {
            newest: over!(newest $head, $columns, "", $tail),
            dated: over!(newest $head, $columns, " AND e.created_at >= ? AND e.created_at < ?", $tail),
            of_message: concat!(
                "WITH found AS MATERIALIZED (
                     SELECT * FROM whatsapp_webhook_events WHERE id = ANY(?) AND id BETWEEN ? AND ?) ",
                $head,
                " FROM (SELECT ",
                $columns,
                " FROM found e
                  WHERE e.status = ANY(?) AND e.webhook_id = (
                      SELECT id FROM whatsapp_webhooks WHERE id = ? AND client_id = ? AND deleted_at IS NULL)
                      AND e.sequence > ? AND e.sequence < ? AND e.created_at >= ? AND e.created_at < ?
                  ORDER BY e.sequence DESC LIMIT ?) AS e ",
                $tail
            ),
        }
    };
    (newest $head:literal, $columns:literal, $span:literal, $tail:literal) => {
        concat!(
            $head,
            " FROM unnest(?) AS wanted (status) CROSS JOIN LATERAL (
                SELECT ",
            $columns,
            " FROM whatsapp_webhook_events e
                WHERE e.status = wanted.status
                    AND e.webhook_id = (
                        SELECT id FROM whatsapp_webhooks WHERE id = ? AND client_id = ? AND deleted_at IS NULL)
                    AND e.sequence > ? AND e.sequence < ?",
            $span,
            " ORDER BY e.sequence DESC LIMIT ?) AS e ",
            $tail
        )
    };
}

impl List {
    /// Within that range, which is the one of an earlier page; else it is found out.
    pub async fn new(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        webhook_id: Uuid,
        filter: &Filter,
        range: Option<Range>,
    ) -> QueryResult<Self> {
        let ids = match &filter.message_id {
            Some(message_id) => Some(of_message(conn, client_id, webhook_id, message_id).await?),
            None => None,
        };
        let range = match range {
            Some(range) => range,
            None if ids.is_some() => Range::ALL,
            None => Range::of(conn, client_id, webhook_id, filter.span, SLACK).await?,
        };
        let statuses: &[Status] = match &filter.status {
            Some(status) => std::slice::from_ref(status),
            None => &Status::ALL,
        };
        Ok(Self {
            client_id,
            webhook_id,
            statuses: statuses.iter().map(|status| status.as_str()).collect(),
            span: filter.span,
            range,
            ids,
        })
    }

    pub fn range(&self) -> Range {
        self.range
    }

    /// How many there are, up to [`TOTAL_CAP`].
    pub async fn count(&self, conn: &mut AsyncPgConnection) -> QueryResult<i64> {
        if self.ids.is_some() || !self.is_dated() {
            return self.count_in(conn, self.range, self.is_dated()).await;
        }
        // What is within the span whatever the slack is counted in the index, and only what may be is looked at.
        let (client, webhook) = (self.client_id, self.webhook_id);
        let within = Range::within(conn, client, webhook, self.span, SLACK).await?;
        if within.is_empty() {
            return self.count_in(conn, self.range, true).await;
        }
        let mut count = self.count_in(conn, within, false).await?;
        for rest in self.range.without(within) {
            if count < TOTAL_CAP {
                count += self.count_in(conn, rest, true).await?;
            }
        }
        Ok(count.min(TOTAL_CAP))
    }

    async fn count_in(
        &self,
        conn: &mut AsyncPgConnection,
        range: Range,
        dated: bool,
    ) -> QueryResult<i64> {
        let texts = over!(
            "SELECT count(*) AS number FROM (SELECT",
            "e.sequence",
            "LIMIT ?) AS capped"
        );
        let counted = self.query(texts, range, dated, TOTAL_CAP);
        let counted = counted.bind::<BigInt, _>(TOTAL_CAP);
        Ok(counted.get_result::<Number>(conn).await?.number)
    }

    /// The newest `limit` of them behind the newest `offset`.
    pub async fn page(
        &self,
        conn: &mut AsyncPgConnection,
        limit: i64,
        offset: i64,
    ) -> QueryResult<Vec<Event>> {
        let mut range = self.range;
        if offset > 0 {
            // Of what is passed over, nothing is read but where it ends.
            let texts = over!(
                "SELECT e.sequence AS number",
                "e.sequence",
                "ORDER BY e.sequence DESC OFFSET ? LIMIT 1"
            );
            let last = self.query(texts, range, self.is_dated(), offset);
            let last = last.bind::<BigInt, _>(offset - 1);
            match last.get_result::<Number>(conn).await.optional()? {
                Some(last) => range.before = last.number,
                None => return Ok(Vec::new()),
            }
        }
        let texts = over!("SELECT e.*", "e.*", "ORDER BY e.sequence DESC LIMIT ?");
        let page = self.query(texts, range, self.is_dated(), limit);
        let page = page.bind::<BigInt, _>(limit);
        page.load(conn).await
    }

    fn is_dated(&self) -> bool {
        self.ids.is_some() || self.span.since.is_some() || self.span.until.is_some()
    }

    /// With all binds but those of the tail; `most` of each status.
    fn query(&self, texts: Texts, range: Range, dated: bool, most: i64) -> Statement<'_> {
        let Self {
            statuses,
            span,
            ids,
            ..
        } = self;
        let text = match ids {
            Some(_) => texts.of_message,
            None if dated => texts.dated,
            None => texts.newest,
        };
        let mut query = Statement::new(text);
        if let Some(ids) = ids {
            query = query
                .bind::<Array<SqlUuid>, _>(ids)
                .bind::<SqlUuid, _>(ids.iter().min().copied().unwrap_or_default())
                .bind::<SqlUuid, _>(ids.iter().max().copied().unwrap_or_default());
        }
        query = query
            .bind::<Array<Text>, _>(statuses)
            .bind::<SqlUuid, _>(self.webhook_id)
            .bind::<Integer, _>(self.client_id)
            .bind::<BigInt, _>(range.after)
            .bind::<BigInt, _>(range.before);
        if dated {
            query = query
                .bind::<Timestamptz, _>(span.since.unwrap_or(span::FIRST))
                .bind::<Timestamptz, _>(span.until.unwrap_or(span::LAST));
        }
        query.bind::<BigInt, _>(most)
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// The ids that the events of a message have, if there are any: those that were committed with it are derived from
/// its own, the others are in an index.
async fn of_message(
    conn: &mut AsyncPgConnection,
    client_id: i32,
    webhook_id: Uuid,
    message_id: &str,
) -> QueryResult<Vec<Uuid>> {
    #[derive(QueryableByName)]
    struct Source {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
        #[diesel(sql_type = Text)]
        event_type: String,
    }
    #[derive(QueryableByName)]
    struct Id {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }
    let sources: Vec<Source> = Statement::new(
        "SELECT id, event_type FROM whatsapp_messages WHERE message_id = ? AND client_id = ? LIMIT ?",
    )
    .bind::<Text, _>(message_id)
    .bind::<Integer, _>(client_id)
    .bind::<BigInt, _>(TOTAL_CAP)
    .load(conn)
    .await?;
    let others: Vec<Id> = Statement::new(
        "SELECT id FROM whatsapp_webhook_events
         WHERE NOT message_stored AND message_id <> '' AND webhook_id = ? AND message_id = ? AND client_id = ?
         LIMIT ?",
    )
    .bind::<SqlUuid, _>(webhook_id)
    .bind::<Text, _>(message_id)
    .bind::<Integer, _>(client_id)
    .bind::<BigInt, _>(TOTAL_CAP)
    .load(conn)
    .await?;
    let derived = sources.iter().filter_map(|source| {
        let event_type: EventType = source.event_type.parse().ok()?;
        Some(ids::event(event_type, source.id, webhook_id))
    });
    Ok(derived
        .chain(others.into_iter().map(|other| other.id))
        .collect())
}
