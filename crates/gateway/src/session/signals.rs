//! What the client library says of a session, as far as it matters here.
//!
//! The handler runs where the library dispatches, before it goes on: what it sets is set before the next
//! stanza is read. It never waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use domain::connection::{Pairing, Status};
use domain::keyring::Keyring;
use tokio::sync::mpsc;
use tokio::time::Instant;
use whatsapp_rust::types::events::{
    ConnectFailureReason, Event, EventHandler, EventInterest, EventKind, MessageBatch,
    UndecryptableMessage,
};
use whatsapp_rust::types::message::MessageInfo;
use whatsapp_rust::wacore::message_processing::EncType;
use whatsapp_rust::wacore::messages::parse_message_info;
use whatsapp_rust::wacore_binary::NodeRef;
use whatsapp_rust::{Jid, OwnedNodeRef};

use super::acks::Acks;
use super::ending::Ending;
use super::unreadable::{Unreadable, offer};
use crate::committer::{Entry, Inbox};
use crate::hook::Asked;
use crate::hook::numbers::LookUp;
use crate::occurrence;
use crate::pulse::Pulse;
use crate::translate::{Numbers, Owner, Undecryptable};
use crate::underway::Underway;

#[derive(Debug)]
pub(super) enum Signal {
    Qr {
        code: String,
        until: Instant,
    },
    PairingCode {
        code: String,
        until: Instant,
    },
    /// A code to be typed can be asked for: on this socket none was, or the one that is shown is good no longer.
    CodeDue,
    /// On this socket no code can be asked for any more.
    CodesEnd,
    Paired,
    Open,
    Closed,
    Ended(Ending),
}

/// A ban of which WhatsApp does not say how long it lasts, and what such pauses may be.
const BAN: Duration = Duration::from_secs(3600);
const SHORTEST_BAN: Duration = Duration::from_secs(60);
const LONGEST_BAN: Duration = Duration::from_secs(30 * 24 * 3600);

/// Listens to one client.
pub(super) struct Signals {
    pub(super) owner: Arc<Owner>,
    pub(super) client: Asked,
    pub(super) keyring: Arc<Keyring>,
    pub(super) inbox: Inbox,
    pub(super) unreadable: Unreadable,
    /// Whether the device is linked to the number it was registered for.
    pub(super) confirmed: Arc<AtomicBool>,
    pub(super) pairing: Pairing,
    pub(super) acks: Acks,
    pub(super) pulse: Arc<Pulse>,
    pub(super) underway: Arc<Underway>,
    pub(super) sender: mpsc::UnboundedSender<Signal>,
}

impl EventHandler for Signals {
    fn handle_event(&self, event: Arc<Event>) {
        let signal = match &*event {
            // WhatsApp offers both, and the client wants one. With the first offer a socket is ready; they
            // go on for some minutes.
            Event::PairingQrCode(_) if self.pairing == Pairing::Code => Signal::CodeDue,
            Event::PairingQrCodesExhausted(_) if self.pairing == Pairing::Code => Signal::CodesEnd,
            Event::PairingQrCode(qr) => Signal::Qr {
                code: qr.code.clone(),
                until: Instant::now() + qr.timeout,
            },
            Event::PairingCode(shown) => Signal::PairingCode {
                code: grouped(&shown.code),
                until: Instant::now() + shown.timeout,
            },
            Event::PairingCodeRefresh(_) => Signal::CodeDue,
            Event::PairingCodeError(error) => {
                tracing::warn!(connection_id = %self.owner.connection_id, error = error.error,
                    "WhatsApp gives no pairing code");
                match &error.rejection {
                    Some(rejection) if rejection.is_throttled() => ended("code_throttled"),
                    Some(_) => ended("code_refused"),
                    // The socket broke, or WhatsApp gave no answer that says no: it is asked again with the next
                    // offer.
                    None => return,
                }
            }
            Event::PairSuccess(paired) => self.paired(&paired.id),
            Event::Connected(_) => Signal::Open,
            Event::Disconnected(_) => Signal::Closed,
            Event::UndecryptableMessage(stanza) => return self.undecryptable(stanza),
            Event::Messages(batch) => return self.event_only(batch),
            Event::Receipt(_)
            | Event::IncomingCall(_)
            | Event::MissedCall(_)
            | Event::GroupUpdate(_) => return self.tell(event),
            Event::RawNode(node) => return self.hear(node),
            Event::ServerAck(ack) => return self.acks.hear(ack),
            Event::PairingQrCodesExhausted(_) => ended("qr_expired"),
            Event::StreamReplaced(_) => ended("replaced"),
            Event::TemporaryBan(ban) => banned(ban.expire.to_std().unwrap_or_default()),
            Event::ClientOutdated(_) => Signal::Ended(Ending::OUTDATED),
            Event::ConnectFailure(failure) if failure.reason.should_reconnect() => Signal::Closed,
            Event::ConnectFailure(failure) => self.refused(failure.reason),
            Event::LoggedOut(out) => Signal::Ended(Ending::Outside {
                status: Status::LoggedOut,
                reason: match out.reason {
                    ConnectFailureReason::AccountLocked => "account_locked",
                    // So the library calls 406, which WhatsApp Web itself calls a ban.
                    ConnectFailureReason::UnknownLogout => "banned",
                    _ => "unlinked",
                },
            }),
            _ => return,
        };
        // Fails only when the session is not listening any more.
        let _ = self.sender.send(signal);
    }

    fn interest(&self) -> EventInterest {
        EventInterest::of(&[
            EventKind::PairingQrCode,
            EventKind::PairingQrCodesExhausted,
            EventKind::PairingCode,
            EventKind::PairingCodeRefresh,
            EventKind::PairingCodeError,
            EventKind::PairSuccess,
            EventKind::Connected,
            EventKind::Disconnected,
            EventKind::LoggedOut,
            EventKind::StreamReplaced,
            EventKind::TemporaryBan,
            EventKind::ClientOutdated,
            EventKind::ConnectFailure,
            EventKind::UndecryptableMessage,
            EventKind::Messages,
            EventKind::RawNode,
            EventKind::ServerAck,
            EventKind::Receipt,
            EventKind::IncomingCall,
            EventKind::MissedCall,
            EventKind::GroupUpdate,
        ])
    }
}

fn ended(reason: &'static str) -> Signal {
    Signal::Ended(Ending::Outside {
        status: Status::Disconnected,
        reason,
    })
}

fn banned(expires_in: Duration) -> Signal {
    Signal::Ended(Ending::Paused {
        reason: "temporarily_banned",
        pause: expires_in.clamp(SHORTEST_BAN, LONGEST_BAN),
    })
}

/// `ABCD-EFGH`, as phones show it.
fn grouped(code: &str) -> String {
    match code.split_at_checked(4) {
        Some((first, second)) if !second.is_empty() => format!("{first}-{second}"),
        _ => code.to_owned(),
    }
}

/// What of a message is encrypted for this device: itself, or its copy in a list of all devices'.
fn encrypted_for<'n, 'd: 'n>(
    message: &'n NodeRef<'d>,
    own: &'n Jid,
) -> impl Iterator<Item = &'n NodeRef<'d>> {
    let copies = message.get_optional_child("participants").into_iter();
    let copies = copies.flat_map(|copies| copies.get_children_by_tag("to"));
    let ours = copies.filter(|copy| copy.attrs().optional_jid("jid").as_ref() == Some(own));
    let ours = ours.flat_map(|copy| copy.get_children_by_tag("enc"));
    message.get_children_by_tag("enc").chain(ours)
}

/// Whether the client library knows how to decrypt this.
fn is_known(encrypted: &NodeRef<'_>) -> bool {
    let kind = encrypted.attrs().optional_string("type");
    kind.is_some_and(|kind| EncType::from_wire(&kind).is_some())
        && encrypted.content_bytes().is_some()
}

impl Signals {
    fn refused(&self, reason: ConnectFailureReason) -> Signal {
        tracing::warn!(connection_id = %self.owner.connection_id, ?reason, "WhatsApp refuses a session");
        match reason {
            ConnectFailureReason::TempBanned => banned(BAN),
            _ => ended("refused"),
        }
    }

    fn paired(&self, pn: &Jid) -> Signal {
        let confirmed = self.owner.has_number(pn);
        self.confirmed.store(confirmed, Ordering::Release);
        match confirmed {
            true => Signal::Paired,
            false => Signal::Ended(Ending::NumberMismatch),
        }
    }

    fn hear(&self, node: &OwnedNodeRef) {
        let now = Instant::now();
        self.pulse.hears(now);
        let stanza = node.get();
        if stanza.tag == "message"
            && let Some(id) = stanza.attrs().optional_string("id")
            && !self.is_unknown(stanza)
        {
            self.underway.reads(&id, now);
        }
    }

    fn undecryptable(&self, stanza: &UndecryptableMessage) {
        self.underway.arrives(&stanza.info.id);
        let why = match stanza.is_unavailable {
            true => Undecryptable::Unavailable,
            false => Undecryptable::Decryption,
        };
        self.unread(&stanza.info, why);
    }

    /// Whether nothing of a message is encrypted in a way that the client library knows. Such a one it acknowledges
    /// and says nothing of; it is told here.
    fn is_unknown(&self, message: &NodeRef<'_>) -> bool {
        if message.get_children_by_tag("enc").any(is_known) {
            return false;
        }
        let Some(client) = self.client.get().and_then(Weak::upgrade) else {
            return false;
        };
        let device = client.persistence_manager().get_device_snapshot();
        let own = device.pn.clone().unwrap_or_default();
        let mut encrypted = encrypted_for(message, &own).peekable();
        if encrypted.peek().is_none() || encrypted.any(is_known) {
            return false;
        }
        match parse_message_info(message, &own, device.lid.as_ref()) {
            Ok(info) => self.unread(&Arc::new(info), Undecryptable::UnknownEncryption),
            Err(error) => tracing::debug!(%error, "a message without an envelope"),
        }
        true
    }

    fn unread(&self, info: &Arc<MessageInfo>, why: Undecryptable) {
        if self.confirmed.load(Ordering::Acquire) {
            self.unreadable.tell(info, why);
        }
    }

    /// Who is named by a LID is looked up first; the handler does not wait for that.
    fn tell(&self, event: Arc<Event>) {
        if !self.confirmed.load(Ordering::Acquire) {
            return;
        }
        let (inbox, owner) = (self.inbox.clone(), Arc::clone(&self.owner));
        let tell = move |event: &Event, numbers: &Numbers| {
            let rows = occurrence::rows(&owner, event, numbers).into_iter();
            let entries = rows.map(|row| Entry::new(row, None)).collect();
            offer(&inbox, &owner, entries);
        };
        let wanted = occurrence::wanted(&event);
        match self.client.get().and_then(Weak::upgrade) {
            Some(client) if !wanted.is_empty() => drop(tokio::spawn(async move {
                let numbers = LookUp::new(&client).of(&wanted).await;
                tell(&event, &numbers);
            })),
            _ => tell(&event, &Numbers::default()),
        }
    }

    /// Newsletters, and what the phone sent again for a placeholder: the library acknowledges them by
    /// itself and shows them here alone.
    fn event_only(&self, batch: &MessageBatch) {
        for item in batch.messages.iter() {
            self.underway.arrives(&item.info.id);
        }
        if batch.hook_committed || !self.confirmed.load(Ordering::Acquire) {
            return;
        }
        let messages = batch.messages.iter();
        let numbers = Numbers::default();
        let entries = messages.filter_map(|item| {
            Entry::of(
                &self.keyring,
                &self.owner,
                &item.info,
                &item.message,
                &numbers,
            )
        });
        offer(&self.inbox, &self.owner, entries.collect());
    }
}
