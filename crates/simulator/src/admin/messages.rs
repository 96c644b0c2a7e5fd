//! Contacts write to accounts, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use waproto::buffa::Message as _;
use waproto::whatsapp::Message;

use super::{Answer, OneOrMany, Refused, parse, query, written};
use crate::account::Account;
use crate::delivery::{self, Addressing, Letter};
use crate::journal::Batch;
use crate::stanza::message_id;
use crate::world::{World, phone_number, unix_time};

/// More than this in one call is a mistake.
const MAX_COUNT: usize = 1_000_000;
/// So many messages are listed under one lock.
const PAGE: usize = 2_000;
/// Senders let others run after so many messages.
const BREATH: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    to: String,
    from: OneOrMany,
    #[serde(default)]
    r#type: Type,
    text: Option<String>,
    /// `type=raw`: the protobuf of the message, base64.
    content: Option<String>,
    stanza_type: Option<String>,
    group: Option<String>,
    #[serde(default)]
    from_me: bool,
    #[serde(default)]
    corrupt: bool,
    #[serde(default)]
    addressing: Addressing,
    name: Option<String>,
    count: Option<usize>,
    /// Messages a second.
    rate: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Type {
    #[default]
    Text,
    /// A protobuf with nothing in it but a field that nobody knows.
    Unknown,
    Raw,
}

impl Request {
    fn content(&self) -> Result<Vec<u8>, Refused> {
        match (&self.r#type, &self.text, &self.content) {
            (Type::Text, Some(text), None) => {
                let message = Message {
                    conversation: Some(text.clone()),
                    ..Default::default()
                };
                Ok(message.encode_to_vec())
            }
            (Type::Text, ..) => Err(Refused::bad_request("type text takes text")),
            // Field 9999, length-delimited: "mystery".
            (Type::Unknown, None, None) => Ok(b"\xfa\xf0\x04\x07mystery".to_vec()),
            (Type::Unknown, ..) => Err(Refused::bad_request("type unknown takes no content")),
            (Type::Raw, None, Some(content)) => BASE64_STANDARD
                .decode(content)
                .map_err(|error| Refused::bad_request(format!("content: {error}"))),
            (Type::Raw, ..) => Err(Refused::bad_request("type raw takes content, in base64")),
        }
    }

    fn contacts(&self, world: &World) -> Result<Vec<Arc<Account>>, Refused> {
        let numbers = self.from.numbers();
        if numbers.is_empty() {
            return Err(Refused::bad_request("from names nobody"));
        }
        let contact = |number: &String| {
            let number = phone_number(number).map_err(Refused::bad_request)?;
            let contact = world.account(&number).map_err(Refused::bad_request)?;
            if let Some(name) = &self.name {
                contact.change(|standing| standing.name.clone_from(name));
                world.keep(&contact);
            }
            Ok(contact)
        };
        numbers.iter().map(contact).collect()
    }

    fn spacing(&self) -> Result<Option<Duration>, Refused> {
        let Some(rate) = self.rate else {
            return Ok(None);
        };
        let spacing = Duration::try_from_secs_f64(1.0 / rate).ok();
        let spacing = spacing.filter(|_| rate > 0.0 && rate.is_finite());
        match spacing {
            Some(spacing) => Ok(Some(spacing)),
            None => Err(Refused::bad_request("rate is messages a second, above 0")),
        }
    }
}

/// Writes `count` messages, the contacts taking turns. With a rate they follow their schedule
/// after the answer; without one all are queued before it.
pub(super) async fn send(world: web::Data<World>, body: web::Bytes) -> Answer {
    let request: Request = parse(&body)?;
    let count = request.count.unwrap_or(1);
    if !(1..=MAX_COUNT).contains(&count) {
        return Err(Refused::bad_request(format!("count is 1 to {MAX_COUNT}")));
    }
    let spacing = request.spacing()?;
    let content = Arc::new(request.content()?);
    let to = phone_number(&request.to).map_err(Refused::bad_request)?;
    let account = world
        .find(&to)
        .filter(|account| !account.devices().is_empty());
    let account = account.ok_or_else(|| Refused::not_found(format!("{to} is not paired")))?;
    let contacts = request.contacts(&world)?;
    if contacts
        .iter()
        .any(|contact| contact.phone == account.phone)
    {
        return Err(Refused::bad_request(
            "from is the account itself: use from_me",
        ));
    }
    let group = request.group.as_deref().map(|name| {
        let mut members = vec![account.phone.as_str()];
        members.extend(contacts.iter().map(|contact| contact.phone.as_str()));
        let mut batch = Batch::default();
        let id = world.groups.ensure(name, &members, unix_time(), &mut batch);
        world.journal.commit(batch);
        id
    });
    let letters: Vec<Letter> = (0..count)
        .map(|turn| Letter {
            id: message_id(),
            account: account.clone(),
            contact: contacts[turn % contacts.len()].clone(),
            from_me: request.from_me,
            group: group.clone(),
            content: content.clone(),
            stanza_type: request.stanza_type.clone().unwrap_or_else(|| "text".into()),
            addressing: request.addressing,
            corrupt: request.corrupt,
        })
        .collect();
    let ids: Vec<String> = letters.iter().map(|letter| letter.id.clone()).collect();
    let writing = write(world.clone().into_inner(), letters, spacing);
    let writing = world.runtime.spawn(writing);
    if spacing.is_none() {
        let result = writing.await.map_err(Refused::conflict)?;
        result.map_err(Refused::conflict)?;
        written(&world).await?;
    }
    let mut answer = json!({ "ids": ids });
    if let Some(group) = group {
        answer["group"] = format!("{group}@g.us").into();
    }
    Ok(HttpResponse::Ok().json(answer))
}

async fn write(
    world: Arc<World>,
    letters: Vec<Letter>,
    spacing: Option<Duration>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    for (turn, letter) in letters.iter().enumerate() {
        match spacing {
            Some(spacing) => {
                let after = spacing.mul_f64(turn as f64);
                tokio::time::sleep_until(start + after).await;
            }
            None if turn % BREATH == BREATH - 1 => tokio::task::yield_now().await,
            None => {}
        }
        if let Err(error) = delivery::send(&world, letter) {
            tracing::warn!(id = letter.id, "not written: {error:#}");
            return Err(error);
        }
    }
    Ok(())
}

/// `?to=` an account, or all; `since` skips so many, `limit` ends after so many.
pub(super) async fn list(world: web::Data<World>, request: HttpRequest) -> Answer {
    let parameters = query(request.query_string())?;
    let account = match parameters.get("to") {
        Some(to) => Some(phone_number(to).map_err(Refused::bad_request)?),
        None => None,
    };
    let number = |name: &str, otherwise: usize| match parameters.get(name) {
        Some(text) => text
            .parse()
            .map_err(|_| Refused::bad_request(format!("{name} is a number"))),
        None => Ok(otherwise),
    };
    let mut from = number("offset", 0)?;
    let mut left = number("limit", usize::MAX)?;
    let mut body = Vec::from(*b"[");
    loop {
        let page = world.ledger.page(account.as_deref(), from, left.min(PAGE));
        for message in &page.messages {
            if body.len() > 1 {
                body.push(b',');
            }
            serde_json::to_writer(&mut body, message).map_err(Refused::conflict)?;
        }
        from += page.passed;
        left -= page.passed;
        if page.passed < PAGE {
            break;
        }
        tokio::task::yield_now().await;
    }
    body.push(b']');
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .body(body))
}

/// The message is encrypted anew for every device that hasn't acknowledged it, and sent under
/// its id.
pub(super) async fn resend(world: web::Data<World>, id: web::Path<String>) -> Answer {
    let message = world.ledger.find(&id);
    let message = message.ok_or_else(|| Refused::not_found(format!("no message {id}")))?;
    let account = world.find(&message.account);
    let account = account.ok_or_else(|| Refused::not_found("its account is gone"))?;
    let mut resent = 0;
    for device in account.devices() {
        let waits = device.lock().queue.get(&id).is_some();
        if waits {
            let done = delivery::resend(&world, &account, &device, &id, None, 1);
            done.map_err(Refused::conflict)?;
            resent += 1;
        }
    }
    if resent == 0 {
        return Err(Refused::conflict("every device has acknowledged it"));
    }
    written(&world).await?;
    Ok(HttpResponse::Ok().json(json!({ "id": *id, "devices": resent })))
}

/// `?from=` an account, or all.
pub(super) async fn outbox(world: web::Data<World>, request: HttpRequest) -> Answer {
    let parameters = query(request.query_string())?;
    let from = match parameters.get("from") {
        Some(from) => Some(phone_number(from).map_err(Refused::bad_request)?),
        None => None,
    };
    Ok(HttpResponse::Ok().json(world.outbox.list(from.as_deref())))
}
