//! A phone links a client.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Refused, parse, query, written};
use crate::pairing::{self, CodeError, Paired};
use crate::world::{World, phone_number};

async fn linked(world: &World, paired: Paired) -> Answer {
    written(world).await?;
    Ok(HttpResponse::Ok().json(json!({
        "phone": paired.phone,
        "device": paired.device,
    })))
}

pub(super) async fn scan_qr(
    world: web::Data<World>,
    request: HttpRequest,
    body: web::Bytes,
) -> Answer {
    let parameters = query(request.query_string())?;
    let phone = match parameters.get("phone") {
        Some(phone) => Some(phone_number(phone).map_err(Refused::bad_request)?),
        None => None,
    };
    let code = std::str::from_utf8(&body).map_err(Refused::bad_request)?;
    let by_lid = match parameters.get("lid_migrated").map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Refused::bad_request("lid_migrated is true or false")),
    };
    let paired = pairing::scan(&world, code, phone.as_deref(), by_lid);
    linked(&world, paired.await.map_err(Refused::conflict)?).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedIn {
    phone_number: String,
    code: String,
    #[serde(default)]
    lid_migrated: bool,
}

pub(super) async fn enter_code(world: web::Data<World>, body: web::Bytes) -> Answer {
    let typed: TypedIn = parse(&body)?;
    let phone = phone_number(&typed.phone_number).map_err(Refused::bad_request)?;
    let paired = pairing::enter(&world, &phone, &typed.code, typed.lid_migrated).await;
    let paired = paired.map_err(|error| match error {
        CodeError::Malformed => Refused::bad_request("a code is eight letters and digits"),
        CodeError::NobodyWaits => {
            Refused::not_found(format!("no client waits for a code of {phone}"))
        }
        CodeError::Failed(error) => Refused::conflict(error),
    })?;
    linked(&world, paired).await
}
