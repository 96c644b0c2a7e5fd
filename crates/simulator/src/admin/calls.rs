//! Contacts call.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Refused, group_id, paired, parse, query, written};
use crate::calls;
use crate::delivery::Addressing;
use crate::world::{World, phone_number};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    to: String,
    from: String,
    #[serde(default)]
    video: bool,
    group: Option<String>,
    #[serde(default)]
    addressing: Addressing,
}

/// Every device of the account rings; those that are away hear later that they missed it.
pub(super) async fn ring(world: web::Data<World>, body: web::Bytes) -> Answer {
    let request: Request = parse(&body)?;
    let account = paired(&world, &request.to)?;
    let from = phone_number(&request.from).map_err(Refused::bad_request)?;
    if from == account.phone {
        return Err(Refused::bad_request("from is the account itself"));
    }
    let contact = world.account(&from).map_err(Refused::bad_request)?;
    let group = request.group.as_deref().map(group_id);
    if let Some(group) = group
        && world.groups.find(group).is_none()
    {
        return Err(Refused::not_found(format!("no group {group}")));
    }
    let (video, addressing) = (request.video, request.addressing);
    let call = calls::ring(&world, &account, &contact, video, group, addressing);
    let call = call.map_err(Refused::conflict)?;
    written(&world).await?;
    Ok(HttpResponse::Ok().json(json!({ "call_id": call.id })))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ending {
    /// `timeout`, `accepted_elsewhere`, `rejected_elsewhere` …
    reason: Option<String>,
    /// Seconds.
    duration: Option<u32>,
}

pub(super) async fn terminate(
    world: web::Data<World>,
    id: web::Path<String>,
    body: web::Bytes,
) -> Answer {
    let ending: Ending = match body.is_empty() {
        true => Ending::default(),
        false => parse(&body)?,
    };
    let ended = calls::terminate(&world, &id, ending.reason.as_deref(), ending.duration);
    let ended = ended.map_err(Refused::conflict)?;
    let call = ended.ok_or_else(|| Refused::not_found(format!("no call {id}")))?;
    written(&world).await?;
    Ok(HttpResponse::Ok().json(call))
}

/// `?to=` an account, or all.
pub(super) async fn list(world: web::Data<World>, request: HttpRequest) -> Answer {
    let parameters = query(request.query_string())?;
    let to = match parameters.get("to") {
        Some(to) => Some(phone_number(to).map_err(Refused::bad_request)?),
        None => None,
    };
    Ok(HttpResponse::Ok().json(world.calls.list(to.as_deref())))
}
