//! What the library calls before it acknowledges a message.

pub(crate) mod lost;
pub(crate) mod numbers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use domain::keyring::Keyring;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whatsapp_rust::types::events::InboundMessage;
use whatsapp_rust::{Client, InboundDurabilityHook, anyhow, async_trait};

use self::numbers::LookUp;
use crate::committer::{Entry, Inbox};
use crate::store::inflight::{Key, Registry};
use crate::translate::{Owner, wanted};
use crate::underway::Underway;

/// The session's client, once there is one.
pub(crate) type Asked = Arc<OnceLock<Weak<Client>>>;

/// Commits one session's messages. `Ok` only after the commit; while PostgreSQL is away it waits, because the
/// library does not ask again for a message that was refused.
#[derive(Clone)]
pub(crate) struct Hook {
    pub(crate) owner: Arc<Owner>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) inbox: Inbox,
    pub(crate) inflight: Arc<Registry>,
    /// Whether the device is linked to the number that it was registered for: another's messages are never
    /// committed.
    pub(crate) confirmed: Arc<AtomicBool>,
    /// The session's end: who waits then gets an error, and the message stays unacknowledged.
    pub(crate) ended: CancellationToken,
    pub(crate) underway: Arc<Underway>,
    /// The calls that are not through yet.
    pub(crate) calls: TaskTracker,
}

#[async_trait]
impl InboundDurabilityHook for Hook {
    async fn on_messages(
        &self,
        client: Arc<Client>,
        batch: &[InboundMessage],
    ) -> anyhow::Result<()> {
        let _call = self.calls.token();
        for message in batch {
            self.underway.arrives(&message.info.id);
        }
        self.check_number()?;
        let mut entries = Vec::with_capacity(batch.len());
        let look_up = LookUp::new(&client);
        for InboundMessage { message, info, .. } in batch {
            let numbers = look_up.of(&wanted(info, message)).await;
            let Some(entry) = Entry::of(&self.keyring, &self.owner, info, message, &numbers) else {
                let source = &info.source;
                let (chat, sender) = (source.chat.to_string(), source.sender.to_string());
                let key = Key::new(&chat, &sender, &info.id);
                self.inflight.leave_out(self.owner.connection_id, key);
                continue;
            };
            entries.push(entry);
        }
        self.commit(entries).await
    }
}

impl Hook {
    pub(crate) fn check_number(&self) -> anyhow::Result<()> {
        let confirmed = self.confirmed.load(Ordering::Acquire);
        anyhow::ensure!(confirmed, "the device is linked to another number");
        Ok(())
    }

    /// Waits for the commit, or for the session's end.
    pub(crate) async fn commit(&self, entries: Vec<Entry>) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            committed = self.inbox.commit(entries) => Ok(committed?),
            () = self.ended.cancelled() => anyhow::bail!("the session has ended"),
        }
    }
}
