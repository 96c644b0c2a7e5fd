//! Sends what stands in the outbox, one message after the other, each under the id that it was given when it was
//! asked for. One that is not confirmed is sent again, by this gateway or the next: whoever has it already
//! knows it by its id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use domain::connection::Status;
use domain::keyring::Keyring;
use domain::message::NewMessage;
use domain::outbox::{Attachment, Body, Next, Outgoing, Trouble};
use runtime::postgres::Pool;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;
use whatsapp_rust::send::{SendError, SendOptions};
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Client, ClientError, IqError, Jid};

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
/// How often its file is asked for where the client says that it is.
const FILE_ATTEMPTS: i32 = 4;
/// What a message waits whose file has no turn among a gateway's files.
const CROWDED: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After an error of PostgreSQL's, and while the client has no connection: when it has one again, that is said.
const PAUSE: Duration = Duration::from_secs(1);
/// While there is nothing to do: who has something says so.
const IDLE: Duration = Duration::from_secs(3600);

/// One session's sender.
pub(super) struct Sending {
    pub(super) client: Arc<Client>,
    pub(super) owner: Arc<Owner>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) files: Arc<Files>,
    /// Of messages that are tried again.
    pub(super) tried: HashMap<Uuid, Tried>,
    pub(super) hold: Hold,
    pub(super) pool: Pool,
    pub(super) bell: Bell,
    pub(super) acks: Acks,
    /// There is something to send, or the session is open.
    pub(super) poked: Arc<Notify>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) pace: Pace,
}

/// What is known of a message from its earlier attempts.
#[derive(Default)]
pub(super) struct Tried {
    /// Its file, which is not put there again.
    placed: Option<Placed>,
    /// How often its URL did not give the file.
    unfetched: i32,
}

/// What became of an attempt.
#[derive(Debug)]
enum Verdict {
    Sent,
    /// WhatsApp or the library will never take it.
    Refused(String),
    /// It may have gone out.
    Unconfirmed(String),
    /// Nothing went out.
    Unsent(String),
    /// Nothing went out: its URL does not give the file.
    Fileless(String),
    /// Nothing was tried: other files are under way.
    Crowded,
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
                Next::Now(outgoing) => {
                    if !self.send(&outgoing).await? {
                        return Ok(PAUSE);
                    }
                }
                Next::In(seconds) => return Ok(Duration::try_from_secs_f64(seconds)?),
                Next::Nothing => {
                    self.tried.clear();
                    break;
                }
            }
        }
        Ok(IDLE)
    }

    /// Returns whether something came of it: nothing while the client has no connection.
    async fn send(&mut self, outgoing: &Outgoing) -> anyhow::Result<bool> {
        let turn = self.pace.next().max(Instant::now());
        self.pace.start(turn);
        sleep_until(turn).await;
        if !self.client.is_connected() {
            return Ok(false);
        }
        let lease = self.hold.lease();
        let (message, verdict) = match self.message(outgoing).await {
            Ok(message) => {
                let verdict = self.attempt(outgoing, &message).await;
                (message, verdict)
            }
            Err(verdict) => (wa::Message::default(), verdict),
        };
        if matches!(verdict, Verdict::Unsent(_)) && !self.client.is_connected() {
            return Ok(false);
        }
        let mut conn = self.pool.get().await?;
        let (outcome, error) = match verdict {
            Verdict::Sent => {
                let row = self.row(outgoing, &message);
                let accepted = outgoing.sent(&mut conn, lease, &row).await?;
                self.bell.ring(accepted.events);
                self.settled(outgoing, "sent");
                return Ok(true);
            }
            Verdict::Crowded => {
                outgoing
                    .put_off(&mut conn, lease, CROWDED.as_secs_f64())
                    .await?;
                return Ok(true);
            }
            Verdict::Refused(error) => {
                let unconfirmed = false;
                let trouble = Trouble { error, unconfirmed };
                outgoing.fail(&mut conn, lease, &trouble).await?;
                self.settled(outgoing, "refused");
                return Ok(true);
            }
            Verdict::Unconfirmed(error) => ("unconfirmed", error),
            Verdict::Unsent(error) => ("unsent", error),
            Verdict::Fileless(error) => ("fileless", error),
        };
        let trouble = Trouble {
            error,
            unconfirmed: outcome == "unconfirmed",
        };
        let unfetched = self.tried.get(&outgoing.id).map(|tried| tried.unfetched);
        if outgoing.attempts + 1 >= ATTEMPTS
            || unfetched.is_some_and(|times| times >= FILE_ATTEMPTS)
        {
            outgoing.fail(&mut conn, lease, &trouble).await?;
            self.settled(outgoing, outcome);
        } else {
            let doubled = Duration::from_secs(1 << outgoing.attempts.clamp(0, 16));
            let pause = doubled.min(LONGEST_PAUSE).as_secs_f64();
            outgoing.postpone(&mut conn, lease, pause, &trouble).await?;
        }
        Ok(true)
    }

    fn settled(&mut self, outgoing: &Outgoing, outcome: &'static str) {
        self.tried.remove(&outgoing.id);
        count(outcome);
    }

    /// What is to be sent; its file is where phones fetch it.
    async fn message(&mut self, outgoing: &Outgoing) -> Result<wa::Message, Verdict> {
        let content = outgoing.content();
        let content = content.map_err(|error| Verdict::Refused(error.to_string()))?;
        let asked_at = outgoing.created_at.timestamp_millis();
        let Body::Media(attachment) = &content.body else {
            return Ok(compose(&content, &outgoing.to, asked_at, None));
        };
        let placed = self.placed(outgoing.id, attachment).await?;
        Ok(compose(&content, &outgoing.to, asked_at, Some(&placed)))
    }

    async fn placed(&mut self, id: Uuid, attachment: &Attachment) -> Result<Placed, Verdict> {
        if let Some(placed) = self.tried.get(&id).and_then(|tried| tried.placed.clone()) {
            return Ok(placed);
        }
        let client_id = self.owner.client_id;
        let placed = self.files.place(&self.client, client_id, attachment).await;
        match placed {
            Ok(placed) => {
                self.tried.entry(id).or_default().placed = Some(placed.clone());
                Ok(placed)
            }
            Err(Failure::Refused(why)) => Err(Verdict::Refused(why)),
            Err(Failure::Unfetched(why)) => {
                self.tried.entry(id).or_default().unfetched += 1;
                Err(Verdict::Fileless(why))
            }
            Err(Failure::Later(why)) => Err(Verdict::Unsent(why)),
            Err(Failure::Crowded) => Err(Verdict::Crowded),
        }
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

/// What a message that was not sent, or maybe not, comes to. The library asks for what it needs (who is in a
/// group, which devices somebody has) before it writes anything.
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
        SendError::Iq(_)
        | SendError::NotLoggedIn
        | SendError::Client(ClientError::NotConnected) => Verdict::Unsent(error.to_string()),
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
            assert!(matches!(failed(&error), Verdict::Unsent(_)), "{error}");
        }
        let broken = SendError::Internal(anyhow::anyhow!("the socket broke"));
        assert!(matches!(failed(&broken), Verdict::Unconfirmed(_)));
    }
}
