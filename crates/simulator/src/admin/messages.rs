//! Contacts write to accounts, and what came of it.

mod content;
mod request;

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use tokio::time::Instant;

use self::content::Chat;
use self::request::Request;
use super::{Answer, Refused, parse, query, written};
use crate::account::Account;
use crate::delivery::{self, Letter};
use crate::journal::Batch;
use crate::stanza::message_id;
use crate::world::{World, phone_number, unix_time};

/// More than this in one call is a mistake.
const MAX_COUNT: usize = 1_000_000;
/// So many messages are listed under one lock.
const PAGE: usize = 2_000;
/// Senders let others run after so many messages.
const BREATH: usize = 32;

/// Writes `count` messages, the contacts taking turns. With a rate they follow their schedule
/// after the answer; without one all are queued before it.
pub(super) async fn send(world: web::Data<World>, body: web::Bytes) -> Answer {
    let request: Request = parse(&body)?;
    let count = request.count.unwrap_or(1);
    if !(1..=MAX_COUNT).contains(&count) {
        return Err(Refused::bad_request(format!("count is 1 to {MAX_COUNT}")));
    }
    let spacing = request.spacing()?;
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
    let written_by = |contact: &Arc<Account>| {
        let chat = Chat {
            world: &world,
            account: &account,
            contact,
            group: group.as_deref(),
        };
        Ok((contact.clone(), content::write(&request, &chat)?))
    };
    let contents: Result<Vec<_>, Refused> = contacts.iter().map(written_by).collect();
    let contents = contents?;
    let letters: Vec<Letter> = (0..count)
        .map(|turn| {
            let (contact, content) = &contents[turn % contents.len()];
            Letter {
                id: message_id(),
                account: account.clone(),
                contact: contact.clone(),
                from_me: request.from_me,
                group: group.clone(),
                content: content.bytes.clone(),
                stanza_type: content.stanza_type.clone(),
                edit: content.edit.clone(),
                addressing: request.addressing,
                corrupt: request.corrupt,
            }
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
