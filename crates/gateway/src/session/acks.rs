//! WhatsApp's answers to what a session sends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use whatsapp_rust::types::events::ServerAck;

type Waiting = HashMap<String, oneshot::Sender<Result<(), String>>>;

/// Of one session. Clones are one and the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Acks(Arc<Mutex<Waiting>>);

/// Waits for the answer to one message, until it is dropped.
#[derive(Debug)]
pub(super) struct Expected {
    acks: Acks,
    message_id: String,
    answer: oneshot::Receiver<Result<(), String>>,
}

impl Acks {
    /// To be called before the message is sent.
    pub(super) fn expect(&self, message_id: &str) -> Expected {
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(message_id.to_owned(), sender);
        Expected {
            acks: self.clone(),
            message_id: message_id.to_owned(),
            answer,
        }
    }

    pub(super) fn hear(&self, ack: &ServerAck) {
        if ack.class.as_deref() != Some("message") {
            return;
        }
        if let Some(sender) = self.waiting().remove(&ack.id) {
            // Nobody waits any more when it took too long.
            let _ = sender.send(ack.error.clone().map_or(Ok(()), Err));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // No code that holds the lock can leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected {
    /// `Err` is WhatsApp's code for why it refused the message.
    pub(super) async fn answer(&mut self) -> Result<(), String> {
        (&mut self.answer)
            .await
            .unwrap_or_else(|_| Err("the session sent it twice".to_owned()))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.acks.waiting().remove(&self.message_id);
    }
}
