//! The paired accounts, and what the server does to them.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use wacore_binary::Node;
use wacore_binary::builder::NodeBuilder;

use super::{Answer, Refused, query, written};
use crate::account::Account;
use crate::device::Device;
use crate::device_list;
use crate::journal::Batch;
use crate::ledger::rfc3339;
use crate::offline::Phase;
use crate::stanza::stream_error;
use crate::world::{World, phone_number};

pub(super) async fn list(world: web::Data<World>) -> HttpResponse {
    let accounts = world.accounts().into_iter().filter_map(|account| {
        let devices = account.devices();
        if devices.is_empty() {
            return None;
        }
        let mut online = false;
        let devices: Vec<_> = devices
            .iter()
            .map(|device| {
                let state = device.lock();
                online |= state.outlet.is_some();
                json!({
                    "device": device.id,
                    "online": state.outlet.is_some(),
                    "live": matches!(state.phase, Phase::Live),
                    "linked_at": rfc3339(state.profile.linked_at * 1000),
                    "undelivered": state.queue.len(),
                    "prekeys": state.prekeys().len(),
                })
            })
            .collect();
        let standing = account.standing();
        Some(json!({
            "phone": account.phone,
            "lid": account.lid,
            "name": standing.name,
            "online": online,
            "banned": standing.banned,
            "devices": devices,
        }))
    });
    HttpResponse::Ok().json(accounts.collect::<Vec<_>>())
}

/// The devices that a call is about: one by `?device=`, else all of the account.
pub(super) fn subject(
    world: &World,
    phone: &str,
    request: &HttpRequest,
) -> Result<(Arc<Account>, Vec<Arc<Device>>), Refused> {
    let phone = phone_number(phone).map_err(Refused::bad_request)?;
    let account = world.find(&phone);
    let account = account.ok_or_else(|| Refused::not_found(format!("no account {phone}")))?;
    let devices = match query(request.query_string())?.get("device") {
        Some(id) => {
            let device = id.parse().ok().and_then(|id| account.device(id));
            let missing = || Refused::not_found(format!("{phone} has no device {id}"));
            vec![device.ok_or_else(missing)?]
        }
        None => account.devices(),
    };
    if devices.is_empty() {
        return Err(Refused::not_found(format!("{phone} has no linked device")));
    }
    Ok((account, devices))
}

/// Says something last, and hangs up.
fn hang_up(devices: &[Arc<Device>], last_words: Option<&Node>) -> HttpResponse {
    let mut ended = 0;
    for device in devices {
        if let Some(outlet) = &device.lock().outlet {
            match last_words {
                Some(words) => {
                    outlet.send(words, 0);
                    outlet.close_soon();
                }
                None => outlet.close(),
            }
            ended += 1;
        }
    }
    HttpResponse::Ok().json(json!({ "connections_ended": ended }))
}

/// Hangs up on a number's devices, and on the client that waits for its code to be typed there.
pub(super) async fn disconnect(
    world: web::Data<World>,
    phone: web::Path<String>,
    request: HttpRequest,
) -> Answer {
    let waited = world.pairings.hang_up(&phone);
    match subject(&world, &phone, &request) {
        Ok((_, devices)) => Ok(hang_up(&devices, None)),
        Err(_) if waited => Ok(hang_up(&[], None)),
        Err(refused) => Err(refused),
    }
}

pub(super) async fn replace(
    world: web::Data<World>,
    phone: web::Path<String>,
    request: HttpRequest,
) -> Answer {
    let (_, devices) = subject(&world, &phone, &request)?;
    Ok(hang_up(
        &devices,
        Some(&stream_error(None, Some("replaced"))),
    ))
}

/// The phone removes its devices.
pub(super) async fn logout(
    world: web::Data<World>,
    phone: web::Path<String>,
    request: HttpRequest,
) -> Answer {
    let (account, devices) = subject(&world, &phone, &request)?;
    let mut batch = Batch::default();
    for device in &devices {
        account.remove_device(device.id);
        device.erase(&device.lock(), &mut batch);
    }
    world.journal.commit(batch);
    written(&world).await?;
    device_list::announce(&account).map_err(Refused::conflict)?;
    let removed = stream_error(Some("401"), Some("device_removed"));
    Ok(hang_up(&devices, Some(&removed)))
}

/// The account is locked: its devices are hung up on, and logins fail with 403.
pub(super) async fn ban(
    world: web::Data<World>,
    phone: web::Path<String>,
    request: HttpRequest,
) -> Answer {
    let (account, devices) = subject(&world, &phone, &request)?;
    account.change(|standing| standing.banned = true);
    world.keep(&account);
    written(&world).await?;
    let failure = NodeBuilder::new("failure").attr("reason", 403).build();
    Ok(hang_up(&devices, Some(&failure)))
}
