//! Stanzas that could not be decrypted.
//!
//! Not each of them is news. The library makes its sessions durable before its groups' keys, each in a
//! transaction of its own. After a crash in between, the copy of a group's message that comes again finds
//! that the session has passed it and that the group's key is missing. Its body was stored before the
//! session was, and goes on from there. Those after it in the group, which nobody had read yet, lack the key
//! as well; the sender is asked for it, and sends each anew.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use domain::keyring::Keyring;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use whatsapp_rust::types::message::MessageInfo;
use whatsapp_rust::waproto::codec::message_decode;
use whatsapp_rust::waproto::whatsapp as wa;

use crate::committer::{Entry, Inbox};
use crate::hook::Asked;
use crate::hook::numbers::LookUp;
use crate::store::Store;
use crate::store::pending_inbound::Earlier;
use crate::translate::{self, Numbers, Owner, Undecryptable};

/// When it is looked, after the look before, whether a group's message whose key is missing was sent anew; then it is
/// told. What PostgreSQL doesn't answer is no look: as long as it is away nothing comes to its end.
const LOOKS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// What is not answered by then, of one look, is nothing to wait for.
const TRIES: usize = 100;
/// A whole group may have to be sent anew: so many of one session are looked for at once.
pub(super) const AT_ONCE: usize = 2;

/// Tells what can't be read, of one session.
#[derive(Clone)]
pub(super) struct Unreadable {
    pub(super) owner: Arc<Owner>,
    pub(super) client: Asked,
    pub(super) keyring: Arc<Keyring>,
    pub(super) inbox: Inbox,
    pub(super) store: Arc<Store>,
    /// [`AT_ONCE`]
    pub(super) looks: Arc<Semaphore>,
}

impl Unreadable {
    /// Looks, without waiting, whether an earlier copy was read, and tells the stanza if not. Best effort:
    /// the library has dealt with the stanza already, and WhatsApp is asked to send it anew.
    pub(super) fn tell(&self, info: &Arc<MessageInfo>, why: Undecryptable) {
        let (this, info) = (self.clone(), Arc::clone(info));
        // What its sender sends anew is not an earlier copy, however soon it is here.
        let (came, settled) = (Instant::now(), self.is_in_flight(&info));
        tokio::spawn(async move {
            let (at, settled) = match !settled
                && why == Undecryptable::Decryption
                && this.lacks_group_key(&info).await
            {
                false => (came, settled),
                true => {
                    let sent = this.is_sent_anew(&info).await;
                    (Instant::now(), sent)
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

    async fn is_sent_anew(&self, info: &MessageInfo) -> bool {
        let (chat, sender) = (info.source.chat.to_string(), info.source.sender.to_string());
        for pause in LOOKS {
            for _ in 0..TRIES {
                sleep(pause).await;
                if self.store.is_lost() || self.is_in_flight(info) {
                    return true;
                }
                let Ok(_turn) = self.looks.acquire().await else {
                    return false;
                };
                let now = Instant::now();
                match self.store.earlier(&chat, &sender, &info.id, now).await {
                    Ok(Earlier::Settled) => return true,
                    Ok(Earlier::Read(_) | Earlier::Unread) => break,
                    Err(error) => tracing::debug!(%error, "no look"),
                }
            }
        }
        false
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
        let wanted = translate::wanted(info, &wa::Message::default());
        let numbers = match self.client.get().and_then(Weak::upgrade) {
            Some(client) => LookUp::new(&client).of(&wanted).await,
            None => Numbers::default(),
        };
        let row = translate::undecryptable(&self.owner, info, why, &numbers);
        Some(Entry::new(row, None))
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
