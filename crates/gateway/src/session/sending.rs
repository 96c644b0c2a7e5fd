//! Sends what stands in the outbox, one message after the other, each under the id that it was given when it was
//! asked for. One that is not confirmed is sent again, by this gateway or the next: whoever has it already
//! knows it by its id.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use domain::connection::Status;
use domain::keyring::Keyring;
use domain::message::NewMessage;
use domain::outbox::{Attachment, Body, Next, Outgoing};
use runtime::postgres::Pool;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;
use whatsapp_rust::send::{SendError, SendOptions};
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Client, IqError, Jid};

use super::acks::{Acks, No};
use crate::bell::Bell;
use crate::compose::compose;
use crate::files::{Failure, Files, Placed};
use crate::hold::Hold;
use crate::pace::Pace;
use crate::translate::{self, Owner};

/// What one message may take to be encrypted and written, and to be answered then.
const SEND: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(15);
/// How often a message is sent that is never answered.
const ATTEMPTS: i32 = 8;
/// How often its file is tried to be had: those behind it wait.
const FILE_ATTEMPTS: i32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After an error of PostgreSQL's.
const PAUSE: Duration = Duration::from_secs(1);
/// While there is nothing to do: who has something says so.
const IDLE: Duration = Duration::from_secs(3600);

/// One session's sender.
pub(super) struct Sending {
    pub(super) client: Arc<Client>,
    pub(super) owner: Arc<Owner>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) files: Arc<Files>,
    /// The last message's file, which is not put there again when the message is sent again.
    pub(super) placed: Option<(Uuid, Placed)>,
    pub(super) hold: Hold,
    pub(super) pool: Pool,
    pub(super) bell: Bell,
    pub(super) acks: Acks,
    /// There is something to send, or the session is open.
    pub(super) poked: Arc<Notify>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) pace: Pace,
}

/// What became of an attempt.
#[derive(Debug)]
enum Verdict {
    Sent,
    /// WhatsApp or the library will never take it.
    Refused(String),
    Unconfirmed(String),
    /// Nothing was sent: its file can't be had, or put there.
    Fileless(String),
}

impl Sending {
    /// Runs as long as its session.
    pub(super) async fn run(mut self) {
        let mut pause = IDLE;
        loop {
            tokio::select! {
                () = self.poked.notified() => {}
                () = sleep(pause) => {}
            }
            pause = match self.send_all().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(connection_id = %self.owner.connection_id,
                        "the outbox cannot be worked off: {error:#}");
                    PAUSE
                }
            };
        }
    }

    /// Sends what is due; returns when to look again.
    async fn send_all(&mut self) -> anyhow::Result<Duration> {
        while *self.status.borrow() == Status::Connected && !self.hold.is_lost() {
            let next = {
                let mut conn = self.pool.get().await?;
                Outgoing::next(&mut conn, self.owner.connection_id).await?
            };
            match next {
                Next::Now(outgoing) => self.send(&outgoing).await?,
                Next::In(seconds) => return Ok(Duration::try_from_secs_f64(seconds)?),
                Next::Nothing => break,
            }
        }
        Ok(IDLE)
    }

    async fn send(&mut self, outgoing: &Outgoing) -> anyhow::Result<()> {
        let turn = self.pace.next().max(Instant::now());
        self.pace.start(turn);
        sleep_until(turn).await;
        let lease = self.hold.lease();
        let (message, verdict) = match self.message(outgoing).await {
            Ok(message) => {
                let verdict = self.attempt(outgoing, &message).await;
                (message, verdict)
            }
            Err(verdict) => (wa::Message::default(), verdict),
        };
        let mut conn = self.pool.get().await?;
        match verdict {
            Verdict::Sent => {
                let row = self.row(outgoing, &message);
                let accepted = outgoing.sent(&mut conn, lease, &row).await?;
                self.bell.ring(accepted.events);
                count("sent");
            }
            Verdict::Refused(error) => {
                outgoing.fail(&mut conn, lease, &error).await?;
                count("refused");
            }
            Verdict::Unconfirmed(error) if outgoing.attempts + 1 >= ATTEMPTS => {
                outgoing.fail(&mut conn, lease, &error).await?;
                count("unconfirmed");
            }
            Verdict::Fileless(error) if outgoing.attempts + 1 >= FILE_ATTEMPTS => {
                outgoing.fail(&mut conn, lease, &error).await?;
                count("fileless");
            }
            Verdict::Unconfirmed(error) | Verdict::Fileless(error) => {
                let doubled = Duration::from_secs(1 << outgoing.attempts.clamp(0, 16));
                let pause = doubled.min(LONGEST_PAUSE).as_secs_f64();
                outgoing.postpone(&mut conn, lease, pause, &error).await?;
            }
        }
        Ok(())
    }

    /// What is to be sent; its file is where phones fetch it.
    async fn message(&mut self, outgoing: &Outgoing) -> Result<wa::Message, Verdict> {
        let content = outgoing.content();
        let content = content.map_err(|error| Verdict::Refused(error.to_string()))?;
        let asked_at = outgoing.created_at.timestamp_millis();
        let Body::Media(attachment) = &content.body else {
            return Ok(compose(&content, &outgoing.to, asked_at, None));
        };
        let placed = match self.placed.take() {
            Some((id, placed)) if id == outgoing.id => placed,
            _ => self.place(attachment).await?,
        };
        let message = compose(&content, &outgoing.to, asked_at, Some(&placed));
        self.placed = Some((outgoing.id, placed));
        Ok(message)
    }

    async fn place(&self, attachment: &Attachment) -> Result<Placed, Verdict> {
        let client_id = self.owner.client_id;
        let placed = self.files.place(&self.client, client_id, attachment);
        placed.await.map_err(|failure| match failure {
            Failure::Refused(why) => Verdict::Refused(why),
            Failure::Later(why) => Verdict::Fileless(why),
        })
    }

    async fn attempt(&self, outgoing: &Outgoing, message: &wa::Message) -> Verdict {
        let Ok(to) = outgoing.to.parse::<Jid>() else {
            return Verdict::Refused("the address cannot be read".to_owned());
        };
        let mut expected = self.acks.expect(&outgoing.message_id);
        let options = SendOptions::default().with_message_id(&outgoing.message_id);
        let sending = self
            .client
            .send_message_with_options(to, message.clone(), options);
        match timeout(SEND, sending).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return failed(&error),
            Err(_) => return Verdict::Unconfirmed("it took too long to send".to_owned()),
        }
        match timeout(ANSWER, expected.answer()).await {
            Ok(Ok(())) => Verdict::Sent,
            Ok(Err(No::Refused(code))) => Verdict::Refused(format!("WhatsApp refused it: {code}")),
            Ok(Err(No::Later(code))) => {
                Verdict::Unconfirmed(format!("WhatsApp did not take it for now: {code}"))
            }
            Err(_) => Verdict::Unconfirmed("WhatsApp did not answer".to_owned()),
        }
    }

    /// The message as the account's own. Its time is that of the request: the same at every attempt.
    fn row(&self, outgoing: &Outgoing, message: &wa::Message) -> NewMessage {
        let sender = self.client.pn().map(|pn| pn.to_non_ad());
        let at = second(outgoing.created_at);
        translate::sent(
            &self.owner,
            sender,
            &outgoing.to,
            &outgoing.message_id,
            at,
            message,
        )
        .sealed(&self.keyring)
    }
}

/// What WhatsApp answers to what is asked for before a message is sent: who is in a group, which devices somebody has.
fn failed(error: &SendError) -> Verdict {
    match error {
        SendError::InvalidRequest(why) => Verdict::Refused(why.clone()),
        SendError::Iq(IqError::ServerError {
            code: code @ 400..500,
            text,
            backoff: None,
            ..
        }) if !matches!(code, 408 | 421 | 429) => {
            Verdict::Refused(format!("WhatsApp refused it: {code} {text}"))
        }
        error => Verdict::Unconfirmed(error.to_string()),
    }
}

fn second(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(TimeDelta::seconds(1)).unwrap_or(at)
}

fn count(outcome: &'static str) {
    metrics::counter!("recado_gateway_sent_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, backoff: Option<u32>) -> SendError {
        SendError::Iq(IqError::ServerError {
            code,
            text: "item-not-found".to_owned(),
            error_type: None,
            backoff,
        })
    }

    #[test]
    fn an_error_of_the_request_is_a_refusal_and_one_of_the_moment_is_none() {
        for code in [400, 401, 403, 404, 406, 499] {
            match failed(&answered(code, None)) {
                Verdict::Refused(why) => assert!(why.contains(&format!("{code} item-not-found"))),
                other => panic!("{code}: {other:?}"),
            }
        }
        for error in [
            answered(408, None),
            answered(429, None),
            answered(403, Some(3)),
            answered(500, None),
            answered(503, None),
            SendError::Iq(IqError::Timeout),
            SendError::NotLoggedIn,
        ] {
            assert!(matches!(failed(&error), Verdict::Unconfirmed(_)), "{error}");
        }
    }
}
