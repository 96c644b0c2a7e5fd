//! Messages whose ratchet has moved on and whose body the store does not find.
//!
//! When a connection broke while a message was on its way through the library, the library may still bring
//! it to the hook on the next connection, after its second copy. So a body that is missing is first only
//! suspected to be lost: the copy stays unacknowledged, and some seconds later the message is either
//! committed or told as lost. The copy that WhatsApp sends with the next connection is then acknowledged.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use diesel::QueryableByName;
use diesel::sql_types::{Bool, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use domain::lease::Lease;
use domain::message::{committed_for, storable, storable_id};
use domain::statement::Statement;
use runtime::postgres::Pool;
use tokio::time::sleep;
use whatsapp_rust::{anyhow, async_trait};

use super::Hook;
use crate::backoff::Backoff;
use crate::committer::Entry;
use crate::hold::Hold;
use crate::store::pending_inbound::{LostBodies, LostBody};
use crate::translate;

/// Longer than the library gathers messages of an offline queue before it commits them (3 s).
const GRACE: Duration = Duration::from_secs(5);

/// Finds out what became of one session's missing bodies.
pub(crate) struct LostMessages {
    hook: Hook,
    hold: Hold,
    pool: Pool,
    suspected: Arc<Mutex<HashSet<Name>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    chat: String,
    sender: String,
    message_id: String,
}

impl LostMessages {
    pub(crate) fn new(hook: Hook, hold: Hold, pool: Pool) -> Self {
        Self {
            hook,
            hold,
            pool,
            suspected: Arc::default(),
        }
    }

    /// Whether it was told as lost already.
    async fn is_told(&self, name: &Name) -> anyhow::Result<bool> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Bool)]
            told: bool,
        }
        let mut conn = self.pool.get().await?;
        let row: Row = Statement::new(
            "SELECT EXISTS (SELECT FROM whatsapp_messages
                 WHERE connection_id = ? AND message_id = ? AND chat = ?
                     AND event_type = 'message.undecryptable' AND metadata->>'reason' = ?) AS told",
        )
        .bind::<SqlUuid, _>(self.hook.owner.connection_id)
        .bind::<Text, _>(storable_id(&name.message_id))
        .bind::<Text, _>(storable(&name.chat))
        .bind::<Text, _>(translate::Undecryptable::BodyLost.as_str())
        .get_result(&mut conn)
        .await?;
        Ok(row.told)
    }
}

#[async_trait]
impl LostBodies for LostMessages {
    async fn report(&self, lost: LostBody<'_>) -> anyhow::Result<()> {
        self.hook.check_number()?;
        let name = Name {
            chat: lost.chat.to_owned(),
            sender: lost.sender.to_owned(),
            message_id: lost.message_id.to_owned(),
        };
        if self.is_told(&name).await? {
            return Ok(());
        }
        if locked(&self.suspected).insert(name.clone()) {
            let (hook, hold, pool) = (self.hook.clone(), self.hold.clone(), self.pool.clone());
            let suspected = Arc::clone(&self.suspected);
            tokio::spawn(async move {
                let ended = hook.ended.clone();
                tokio::select! {
                    () = settle(&hook, hold.lease(), &pool, &name) => {}
                    () = ended.cancelled() => {}
                }
                locked(&suspected).remove(&name);
            });
        }
        anyhow::bail!("its message may still be on its way")
    }
}

/// Tells the message as lost unless it has arrived meanwhile.
async fn settle(hook: &Hook, lease: Lease, pool: &Pool, name: &Name) {
    sleep(GRACE).await;
    let mut backoff = Backoff::default();
    while let Err(error) = tell(hook, lease, pool, name).await {
        tracing::warn!("a lost message could not be told yet: {error:#}");
        backoff.pause().await;
    }
}

async fn tell(hook: &Hook, lease: Lease, pool: &Pool, name: &Name) -> anyhow::Result<()> {
    let connection_id = hook.owner.connection_id;
    let (arrived, held) = {
        let mut conn = pool.get().await?;
        let (chat, id) = (&name.chat, &name.message_id);
        let arrived = committed_for(&mut conn, connection_id, chat, id).await?;
        (arrived, lease.is_held(&mut conn).await?)
    };
    // Whose session it is by now has it, or tells it.
    if arrived.is_some() || !held {
        return Ok(());
    }
    tracing::error!(%connection_id, message_id = name.message_id, "a message is lost");
    let Name {
        chat,
        sender,
        message_id,
    } = name;
    let row = translate::lost(&hook.owner, chat, sender, message_id, Utc::now());
    hook.commit(vec![Entry::new(row, None)])
        .await
        .context("committing that it was lost")
}

fn locked(suspected: &Mutex<HashSet<Name>>) -> MutexGuard<'_, HashSet<Name>> {
    // No code that holds the lock can leave the set half changed.
    suspected.lock().unwrap_or_else(PoisonError::into_inner)
}
