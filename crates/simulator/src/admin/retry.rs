//! A contact asks an account for a message again.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;
use wacore_binary::Jid;
use wacore_binary::builder::NodeBuilder;

use super::{Answer, Refused, paired, parse, written};
use crate::receipts;
use crate::world::{World, phone_number, unix_time};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    account: String,
    id: String,
    /// Who asks; else who read it first.
    from: Option<String>,
    /// The how manieth time.
    count: Option<u32>,
    /// New keys come along; from the second time on they do anyway.
    keys: Option<bool>,
}

/// The device that sent it is asked; what it sends then is in the outbox with `again`.
pub(super) async fn ask(world: web::Data<World>, body: web::Bytes) -> Answer {
    let request: Request = parse(&body)?;
    let account = paired(&world, &request.account)?;
    let sent = world.outbox.find(&account.phone, &request.id);
    let sent = sent.ok_or_else(|| Refused::not_found(format!("no message {}", request.id)))?;
    let from = match &request.from {
        Some(from) => phone_number(from).map_err(Refused::bad_request)?,
        None => sent.to.clone(),
    };
    let reader = world.account(&from).map_err(Refused::bad_request)?;
    let device = account.device(sent.device);
    let device = device.ok_or_else(|| Refused::conflict("the device that sent it is gone"))?;
    let receipt = NodeBuilder::new("receipt")
        .attr("id", request.id.as_str())
        .attr("t", unix_time());
    let group = sent.group.as_deref().map(|group| world.groups.find(group));
    let receipt = match group {
        Some(Some(group)) => receipt
            .attr("from", Jid::group(group.id.as_str()))
            .attr("participant", group.names(&reader).0),
        Some(None) => return Err(Refused::conflict("its group is gone")),
        None if device.lock().profile.by_lid => receipt.attr("from", reader.lid_jid()),
        None => receipt.attr("from", reader.jid()),
    };
    let count = request.count.unwrap_or(1);
    let ask = receipts::Request {
        id: &request.id,
        count,
        keys: request.keys.unwrap_or(count > 1),
    };
    let receipt = ask.stanza(&world, &reader, receipt);
    device.post(&world, &receipt.map_err(Refused::conflict)?);
    written(&world).await?;
    Ok(HttpResponse::Ok().json(json!({ "id": request.id, "device": device.id })))
}
