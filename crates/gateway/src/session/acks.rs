//! WhatsApp's answers to what a session sends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use whatsapp_rust::types::events::ServerAck;

type Waiting = HashMap<String, oneshot::Sender<Result<(), No>>>;

/// Why a message was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum No {
    /// WhatsApp's code. It will never take it.
    Refused(String),
    /// It may take the same later.
    Later(String),
}

/// Of one session. Clones are one and the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Acks(Arc<Mutex<Waiting>>);

/// Waits for the answer to one message, until it is dropped.
#[derive(Debug)]
pub(super) struct Expected {
    acks: Acks,
    message_id: String,
    answer: oneshot::Receiver<Result<(), No>>,
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
            let _ = sender.send(
                ack.error
                    .as_deref()
                    .map_or(Ok(()), |code| Err(No::of(code))),
            );
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // No code that holds the lock can leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl No {
    /// Of the codes that WhatsApp answers with, these speak of the moment: it is not ready (421), or asked too
    /// much (429), or in trouble (5xx).
    fn of(code: &str) -> Self {
        match code.parse() {
            Ok(421 | 429 | 500..600) => Self::Later(code.to_owned()),
            _ => Self::Refused(code.to_owned()),
        }
    }
}

impl Expected {
    pub(super) async fn answer(&mut self) -> Result<(), No> {
        let twice = || No::Later("the session sent it twice".to_owned());
        (&mut self.answer).await.unwrap_or_else(|_| Err(twice()))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.acks.waiting().remove(&self.message_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_speak_of_the_moment_do_not_refuse_a_message_for_good() {
        for code in ["421", "429", "500", "503", "599"] {
            assert_eq!(No::of(code), No::Later(code.to_owned()));
        }
        for code in ["400", "403", "404", "420", "479", "600", "", "later"] {
            assert_eq!(No::of(code), No::Refused(code.to_owned()));
        }
    }
}
