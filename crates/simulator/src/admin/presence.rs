//! Contacts come, go and type.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use wacore_binary::Jid;

use super::{Answer, OneOrMany, Refused, group_id, paired, parse};
use crate::account::Account;
use crate::presence::{self, State};
use crate::world::{World, phone_number, unix_time};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    from: OneOrMany,
    state: State,
    /// An account; without it those hear it who watch `from`.
    to: Option<String>,
    group: Option<String>,
    /// Unix seconds, of `unavailable`; else now.
    last_seen: Option<i64>,
}

pub(super) async fn show(world: web::Data<World>, body: web::Bytes) -> Answer {
    let request: Request = parse(&body)?;
    let typing = !matches!(request.state, State::Available | State::Unavailable);
    let to = match &request.to {
        Some(to) => Some(paired(&world, to)?),
        None if typing => return Err(Refused::bad_request("to: whoever types does it to someone")),
        None => None,
    };
    let group = match &request.group {
        Some(_) if !typing => return Err(Refused::bad_request("group: for those who type")),
        Some(group) => {
            let found = world.groups.find(group_id(group));
            let found = found.ok_or_else(|| Refused::not_found(format!("no group {group}")))?;
            Some(Jid::group(found.id.as_str()))
        }
        None => None,
    };
    let mut told = 0;
    for number in request.from.numbers() {
        let number = phone_number(number).map_err(Refused::bad_request)?;
        let who: Arc<Account> = world.account(&number).map_err(Refused::bad_request)?;
        told += match (&to, typing) {
            (Some(to), true) => presence::types(&who, group.as_ref(), request.state, to),
            _ => {
                let last_seen = request.last_seen.unwrap_or_else(unix_time);
                let there = request.state == State::Available;
                presence::show(&world, &who, there, last_seen, to.as_deref())
            }
        };
    }
    Ok(HttpResponse::Ok().json(json!({ "devices": told })))
}

/// What devices said of themselves, and whom they watch.
pub(super) async fn list(world: web::Data<World>) -> HttpResponse {
    let watched = world.presences.watched().into_iter();
    let watched = watched.map(|((account, device), whom)| {
        json!({ "account": account, "device": device, "watches": whom })
    });
    HttpResponse::Ok().json(json!({
        "heard": world.presences.heard(),
        "subscriptions": watched.collect::<Vec<Value>>(),
    }))
}
