//! Decrypted messages on their way to the durability hook.
//!
//! The library keeps a message here before it calls the hook, removes it after the hook returned `Ok`,
//! and acknowledges it then. It asks for a body again only when a stanza comes a second time and Signal
//! says that its ratchet has passed it (and once, for a probe it has just stored, when a client is
//! built). So a body that is missing then is never that of a first delivery. It is one of these:
//!
//! - its row is being written, or the hook is at work on it: an error, which leaves the stanza
//!   unacknowledged;
//! - its message is committed, and only the acknowledgement was lost: `None`, acknowledge;
//! - the hook passed it by (what the account's own devices tell each other): its row stays, without a
//!   body: `None`;
//! - none of these: the ratchet's new state survived and the body did not. That is told to [`LostBodies`],
//!   once, and then `None`. (A stanza that carried nothing but a group's sender key never has a body. It
//!   cannot be told apart when its acknowledgement is lost, and is reported too: better than silence.)
//!
//! If storing a body fails, the stanza's second delivery is such a duplicate. Therefore storing returns no
//! error while the device exists: it waits. A task that waits ends with its runtime; there is no other way
//! out, since an error would be an acknowledgement without a message at the next delivery.
//!
//! The last case is kept rare by order: the library flushes the ratchets of all chats at once, also of
//! those whose message is still being stored here, so such a flush waits for the rows before it
//! ([`Registry::settled`](super::inflight::Registry)).

use std::sync::Arc;
use std::time::Instant;

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Double, Integer, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use domain::message::{committed_for, storable, storable_id};
use domain::sealed::PENDING_BODY;
use domain::statement::Statement;
use uuid::Uuid;
use whatsapp_rust::async_trait;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::{PendingInboundKey, PendingInboundRow};

use super::Store;
use super::bodies::Body;
use super::columns::last_by_key;
use super::grouped::Kept;
use super::inflight::Key;
use super::patience::{Limit, Patience};
use super::schema::protocol_pending_inbound as pending;

/// A message that can be neither replayed nor read again. Chat and sender are as the library gives them:
/// the stanza's own.
#[derive(Debug, Clone, Copy)]
pub struct LostBody<'a> {
    pub connection_id: Uuid,
    pub chat: &'a str,
    pub sender: &'a str,
    pub message_id: &'a str,
}

/// Who is told of lost bodies.
#[async_trait]
pub trait LostBodies: Send + Sync {
    /// Commits that the message was lost. After `Ok` its stanza is acknowledged; after an error it comes
    /// again, and so does this call.
    async fn report(&self, lost: LostBody<'_>) -> anyhow::Result<()>;
}

enum Known {
    Body(Vec<u8>),
    Settled,
    Nothing,
}

/// What became of an earlier copy of a stanza.
#[derive(Debug, PartialEq, Eq)]
pub enum Earlier {
    /// It was decrypted, and this body waits for the hook.
    Read(Vec<u8>),
    /// It is committed, or on its way.
    Settled,
    /// There was none that could be read.
    Unread,
}

impl Store {
    pub(super) async fn keep_bodies(&self, rows: &[PendingInboundRow<'_>]) -> Result<()> {
        let (keys, rows) = last_by_key(
            rows.iter()
                .map(|row| (Key::new(row.chat, row.sender, row.id), row)),
        );
        let flight = self.shelf.inflight.enter(self.connection_id, keys.clone());
        let rows = keys
            .iter()
            .zip(&rows)
            .map(|(key, row)| {
                let body = self.seal(PENDING_BODY, &hex::encode(key.as_bytes()), row.message);
                named(*key, row.chat, row.sender, row.id, Some(body))
            })
            .collect();
        let putting = self.put_rows("store_pending_inbound", rows);
        // The library gives up who waits here when its connection breaks, and the ratchet has moved on
        // nevertheless: the row is written whoever waits for it.
        let task = tokio::spawn(async move {
            let _flight = flight;
            putting.await
        });
        task.await
            .unwrap_or_else(|error| Err(StoreError::Database(Box::new(error))))
    }

    pub(super) async fn find_body(
        &self,
        chat: &str,
        sender: &str,
        id: &str,
    ) -> Result<Option<Vec<u8>>> {
        let key = Key::new(chat, sender, id);
        self.shelf.underway.arrives(id);
        let mut known = self.look_up(key, chat, id, None).await?;
        if let Known::Nothing = known {
            if self.shelf.inflight.holds(self.connection_id, key) {
                return Err(StoreError::Validation(format!(
                    "message {id} is still being committed"
                )));
            }
            // It may have landed between the look and the question.
            known = self.look_up(key, chat, id, None).await?;
        }
        match known {
            Known::Body(sealed) => self
                .open(PENDING_BODY, &hex::encode(key.as_bytes()), &sealed)
                .map(Some),
            Known::Settled => Ok(None),
            Known::Nothing => {
                self.report_lost(key, chat, sender, id).await?;
                Ok(None)
            }
        }
    }

    /// Whether a copy of a stanza is on its way to its commit.
    pub fn is_in_flight(&self, chat: &str, sender: &str, id: &str) -> bool {
        let key = Key::new(chat, sender, id);
        self.shelf.inflight.holds(self.connection_id, key)
    }

    /// What became of those copies of a stanza that were here at that moment. To be asked after
    /// [`Store::is_in_flight`].
    pub async fn earlier(
        &self,
        chat: &str,
        sender: &str,
        id: &str,
        at: Instant,
    ) -> Result<Earlier> {
        let key = Key::new(chat, sender, id);
        match self.look_up(key, chat, id, Some(at)).await? {
            Known::Body(sealed) => self
                .open(PENDING_BODY, &hex::encode(key.as_bytes()), &sealed)
                .map(Earlier::Read),
            Known::Settled => Ok(Earlier::Settled),
            Known::Nothing => Ok(Earlier::Unread),
        }
    }

    /// What can be said of a message, or could at that moment, looked up in the order in which a message
    /// moves.
    async fn look_up(&self, key: Key, chat: &str, id: &str, at: Option<Instant>) -> Result<Known> {
        let patience = match at {
            None => Patience::Outage,
            Some(_) => Patience::Brief,
        };
        if at.is_none() && self.shelf.inflight.is_forgotten(self.connection_id, key) {
            return Ok(Known::Settled);
        }
        self.read("get_pending_inbound", patience, async |conn| {
            let row: Option<(Option<Vec<u8>>, f64)> = pending::table
                .find((self.device_id, key.as_bytes()))
                .select((
                    pending::body,
                    sql::<Double>("extract(epoch FROM now() - stored_at)::float8"),
                ))
                .first(conn)
                .await
                .optional()?;
            let committed = match row {
                None => committed_for(conn, self.connection_id, chat, id).await?,
                Some(_) => None,
            };
            let was_here = |seconds| at.is_none_or(|at| seconds > at.elapsed().as_secs_f64());
            Ok(match (row, committed) {
                (Some((Some(body), seconds)), _) if was_here(seconds) => Known::Body(body),
                (Some((None, seconds)), _) if was_here(seconds) => Known::Settled,
                (None, Some(seconds)) if was_here(seconds) => Known::Settled,
                _ => Known::Nothing,
            })
        })
        .await
    }

    async fn report_lost(&self, key: Key, chat: &str, sender: &str, id: &str) -> Result<()> {
        let lost = LostBody {
            connection_id: self.connection_id,
            chat,
            sender,
            message_id: id,
        };
        tracing::warn!(
            connection_id = %self.connection_id,
            message_id = id,
            "a message's ratchet was kept and its body is not found"
        );
        self.shelf
            .lost_bodies
            .report(lost)
            .await
            .map_err(|error| StoreError::Database(error.into()))?;
        metrics::counter!("recado_gateway_bodies_lost_total").increment(1);
        // So that it is told once, should the acknowledgement be lost too.
        let row = named(key, chat, sender, id, None);
        self.put_rows("settle_lost_body", vec![row]).await
    }

    pub(super) async fn settle_bodies(&self, keys: &[PendingInboundKey<'_>]) -> Result<()> {
        let keys = keys
            .iter()
            .map(|key| Key::new(key.chat, key.sender, key.id));
        let inflight = &self.shelf.inflight;
        let (left_out, done): (Vec<Key>, Vec<Key>) =
            keys.partition(|key| inflight.is_left_out(self.connection_id, *key));
        if !done.is_empty() {
            let bodies = &self.shelf.bodies;
            bodies.forget(self.hold.lease(), self.device_id, done).await;
        }
        if !left_out.is_empty() {
            self.leave_out(&left_out).await?;
            inflight.forget_left_out(self.connection_id, &left_out);
        }
        Ok(())
    }

    /// Keeps the rows without their bodies.
    async fn leave_out(&self, keys: &[Key]) -> Result<()> {
        let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
        self.write("leave_out_pending_inbound", Patience::Brief, async |conn| {
            Statement::new(
                "UPDATE protocol_pending_inbound SET body = NULL
                 WHERE (SELECT set_config('synchronous_commit', 'off', true)) = 'off'
                     AND device_id = ? AND key = ANY(?)",
            )
            .bind::<Integer, _>(self.fenced())
            .bind::<Array<Binary>, _>(&keys)
            .execute(conn)
            .await
            .map(drop)
        })
        .await
    }

    /// Old rows go when their message is committed, or there is none to come; a body that no hook has
    /// taken stays.
    pub(super) async fn expire_bodies(&self, cutoff_timestamp: i64) -> Result<u32> {
        let rows = self
            .write(
                "delete_expired_pending_inbound",
                Patience::Brief,
                async |conn| {
                    Statement::new(
                        "DELETE FROM protocol_pending_inbound AS old
                     WHERE device_id = ? AND stored_at < to_timestamp(?)
                         AND (body IS NULL OR EXISTS (SELECT FROM whatsapp_messages AS message
                             WHERE message.connection_id = ?
                                 AND message.message_id = old.message_id
                                 AND message.chat = old.chat
                                 AND message.event_type <> 'message.undecryptable'))",
                    )
                    .bind::<Integer, _>(self.fenced())
                    .bind::<BigInt, _>(cutoff_timestamp)
                    .bind::<SqlUuid, _>(self.connection_id)
                    .execute(conn)
                    .await
                },
            )
            .await?;
        Ok(u32::try_from(rows).unwrap_or(u32::MAX))
    }

    /// Writes rows, with those of other sessions.
    fn put_rows(
        &self,
        operation: &'static str,
        rows: Vec<Body>,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let (bodies, hold, device_id) =
            (self.shelf.bodies.clone(), self.hold.clone(), self.device_id);
        async move {
            let mut limit = Limit::new(operation, Patience::Unending);
            let rows = Arc::new(rows);
            loop {
                match bodies
                    .keep(hold.lease(), device_id, Arc::clone(&rows))
                    .await
                {
                    Ok(Kept::Kept) => return Ok(()),
                    Ok(Kept::LeaseLost) => return Err(super::lost(&hold)),
                    Err(failed) => limit.wait_after(failed, device_id).await?,
                }
            }
        }
    }
}

/// No stranger's id keeps a body from being stored; the key is made of the true one.
fn named(key: Key, chat: &str, sender: &str, id: &str, body: Option<Vec<u8>>) -> Body {
    Body {
        key,
        chat: storable(chat),
        sender: storable(sender),
        message_id: storable_id(id),
        body,
    }
}
