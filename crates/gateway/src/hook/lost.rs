//! Messages whose ratchet has moved on and whose body the store does not find.
//!
//! When a connection broke while a message was on its way through the library, the library may still bring
//! it to the hook on the next connection, after its second copy. So a body that is missing is first only
//! suspected to be lost: the copy stays unacknowledged. Some seconds later its sender is asked for the message
//! once more, as for one that could not be decrypted, and if that brings nothing either it is told as lost. The
//! copy that WhatsApp sends with the next connection is then acknowledged.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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
use whatsapp_rust::wacore_binary::{JidExt, Node};
use whatsapp_rust::{Client, Jid, NodeBuilder, anyhow, async_trait};

use super::{Asked, Hook};
use crate::backoff::Backoff;
use crate::committer::Entry;
use crate::hold::Hold;
use crate::store::pending_inbound::{LostBodies, LostBody};
use crate::translate;

/// So often it is looked whether the message has arrived: longer than the library gathers messages of an offline
/// queue before it commits them (3 s).
const GRACE: usize = 5;
/// The same after a phone was asked; then the message is told as lost. What comes later is told as well.
const ANEW: usize = 15;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Finds out what became of one session's missing bodies.
pub(crate) struct LostMessages {
    hook: Hook,
    hold: Hold,
    pool: Pool,
    client: Asked,
    suspected: Arc<Mutex<HashSet<Name>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    chat: String,
    sender: String,
    message_id: String,
}

impl LostMessages {
    pub(crate) fn new(hook: Hook, hold: Hold, pool: Pool, client: Asked) -> Self {
        Self {
            hook,
            hold,
            pool,
            client,
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
            let client = self.client.get().and_then(Weak::upgrade);
            let suspected = Arc::clone(&self.suspected);
            tokio::spawn(async move {
                let ended = hook.ended.clone();
                tokio::select! {
                    () = settle(&hook, hold.lease(), &pool, client, &name) => {}
                    () = ended.cancelled() => {}
                }
                locked(&suspected).remove(&name);
            });
        }
        anyhow::bail!("its message may still be on its way")
    }
}

/// Tells the message as lost unless it arrives.
async fn settle(hook: &Hook, lease: Lease, pool: &Pool, client: Option<Arc<Client>>, name: &Name) {
    if arrives(hook, pool, name, GRACE).await {
        return;
    }
    if let Some(client) = client
        && let Some(request) = request(&client, name)
    {
        metrics::counter!("recado_gateway_bodies_asked_for_total").increment(1);
        match client.send_node(request).await {
            Ok(()) if arrives(hook, pool, name, ANEW).await => return,
            Ok(()) => {}
            Err(error) => tracing::warn!("a lost message could not be asked for: {error}"),
        }
    }
    let mut backoff = Backoff::default();
    while let Err(error) = tell(hook, lease, pool, name).await {
        tracing::warn!("a lost message could not be told yet: {error:#}");
        backoff.pause().await;
    }
}

/// Whether the message is committed before so many looks. What PostgreSQL doesn't answer is no look: as long as it
/// is away nothing arrives.
async fn arrives(hook: &Hook, pool: &Pool, name: &Name, mut looks: usize) -> bool {
    while looks > 0 {
        sleep(BETWEEN_LOOKS).await;
        let look = async {
            let mut conn = pool.get().await?;
            let connection_id = hook.owner.connection_id;
            let (chat, id) = (&name.chat, &name.message_id);
            let committed = committed_for(&mut conn, connection_id, chat, id).await?;
            anyhow::Ok(committed.is_some())
        };
        match look.await {
            Ok(true) => return true,
            Ok(false) => looks -= 1,
            Err(_) => {}
        }
    }
    false
}

/// The receipt with which a device asks a message's sender to encrypt it anew. Without keys of its own: the sender
/// has a session with it.
fn request(client: &Client, name: &Name) -> Option<Node> {
    let (chat, sender): (Jid, Jid) = (name.chat.parse().ok()?, name.sender.parse().ok()?);
    let registration_id = client
        .persistence_manager()
        .get_device_snapshot()
        .registration_id;
    let retry = NodeBuilder::new("retry")
        .attr("v", "1")
        .attr("id", name.message_id.as_str())
        .attr("t", Utc::now().timestamp())
        .attr("count", 1)
        .build();
    let registration = NodeBuilder::new("registration")
        .bytes(registration_id.to_be_bytes().to_vec())
        .build();
    let receipt = NodeBuilder::new("receipt")
        .attr("id", name.message_id.as_str())
        .attr("type", "retry");
    let own = [client.pn(), client.lid()];
    let is_own = own.iter().flatten().any(|own| own.is_same_user_as(&sender));
    let receipt = if chat.is_group() || chat.is_broadcast_list() || chat.is_status_broadcast() {
        receipt.attr("to", chat).attr("participant", sender)
    } else if is_own {
        receipt.attr("to", sender).attr("recipient", chat)
    } else {
        receipt.attr("to", sender)
    };
    Some(receipt.children([retry, registration]).build())
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
