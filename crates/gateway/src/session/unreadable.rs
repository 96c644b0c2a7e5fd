//! Stanzas that could not be decrypted.
//!
//! Not each of them is news. The library makes its sessions durable before its groups' keys, each in a
//! transaction of its own. After a crash in between, the copy of a group's message that comes again finds
//! that the session has passed it and that the group's key is missing. Its body was stored before the
//! session was, and goes on from there. Those after it in the group, which nobody had read yet, lack the key
//! as well; the sender is asked for it, and sends each anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::keyring::Keyring;
use tokio::time::sleep;
use whatsapp_rust::types::events::UndecryptableMessage;
use whatsapp_rust::types::message::MessageInfo;
use whatsapp_rust::waproto::codec::message_decode;

use crate::committer::{Entry, Inbox};
use crate::store::Store;
use crate::store::pending_inbound::Earlier;
use crate::translate::{self, Numbers, Owner, Undecryptable};

/// How long a group's message whose key is missing may take to be sent anew before it is told.
const ANEW: Duration = Duration::from_secs(15);

/// Tells what can't be read, of one session.
#[derive(Clone)]
pub(super) struct Unreadable {
    pub(super) owner: Arc<Owner>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) inbox: Inbox,
    pub(super) store: Arc<Store>,
}

impl Unreadable {
    /// Looks, without waiting, whether an earlier copy was read, and tells the stanza if not. Best effort:
    /// the library has dealt with the stanza already, and WhatsApp is asked to send it anew.
    pub(super) fn tell(&self, stanza: &UndecryptableMessage) {
        let (this, info) = (self.clone(), Arc::clone(&stanza.info));
        // What its sender sends anew is not an earlier copy, however soon it is here.
        let (came, settled) = (Instant::now(), self.is_in_flight(&info));
        let why = match stanza.is_unavailable {
            true => Undecryptable::Unavailable,
            false => Undecryptable::Decryption,
        };
        tokio::spawn(async move {
            let (at, settled) = match !settled && this.lacks_group_key(&info).await {
                false => (came, settled),
                true => {
                    sleep(ANEW).await;
                    (Instant::now(), this.is_in_flight(&info))
                }
            };
            if !settled
                && this.store.is_held().await
                && let Some(entry) = this.entry(&info, why, at).await
            {
                offer(&this.inbox, &this.owner, vec![entry]);
            }
        });
    }

    /// Whether it is a group's message that nothing here could have read, rather than a bad one.
    async fn lacks_group_key(&self, info: &MessageInfo) -> bool {
        let source = &info.source;
        let users: Vec<&str> = std::iter::once(&source.sender)
            .chain(&source.sender_alt)
            .map(|sender| &*sender.user)
            .collect();
        let group = source.chat.to_string();
        let kept = self.store.has_sender_key(&group, &users);
        source.is_group && !kept.await.unwrap_or(true)
    }

    fn is_in_flight(&self, info: &MessageInfo) -> bool {
        let (chat, sender) = (info.source.chat.to_string(), info.source.sender.to_string());
        self.store.is_in_flight(&chat, &sender, &info.id)
    }

    /// What is to be told, if nothing that was here at that moment could be read.
    async fn entry(&self, info: &MessageInfo, why: Undecryptable, at: Instant) -> Option<Entry> {
        let (chat, sender) = (info.source.chat.to_string(), info.source.sender.to_string());
        match self.store.earlier(&chat, &sender, &info.id, at).await {
            Ok(Earlier::Settled) => return None,
            Ok(Earlier::Read(body)) => {
                if let Ok(message) = message_decode(&body) {
                    let numbers = Numbers::default();
                    return Entry::of(
                        &self.keyring,
                        &self.owner,
                        info,
                        &Arc::new(message),
                        &numbers,
                    );
                }
            }
            Ok(Earlier::Unread) => {}
            // Better told once too often than not at all.
            Err(error) => tracing::warn!(%error, "the earlier copies of a stanza are not known"),
        }
        tracing::warn!(connection_id = %self.owner.connection_id, message_id = info.id,
            reason = why.as_str(), "a message can't be read");
        metrics::counter!("recado_gateway_undecryptable_total").increment(1);
        Some(Entry::new(
            translate::undecryptable(&self.owner, info, why),
            None,
        ))
    }
}

/// Best effort: nobody waits for the commit, and while PostgreSQL is away only so many are kept.
pub(super) fn offer(inbox: &Inbox, owner: &Owner, entries: Vec<Entry>) {
    if let Err(error) = inbox.offer(entries) {
        metrics::counter!("recado_gateway_best_effort_dropped_total").increment(1);
        tracing::warn!(connection_id = %owner.connection_id, %error,
            "what WhatsApp does not wait for was dropped");
    }
}
