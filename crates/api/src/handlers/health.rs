//! Whether the API answers at all. Whether it can work is asked on the ops port.

use actix_web::web::Json;
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Health {
    status: &'static str,
}

pub(crate) async fn show() -> Json<Health> {
    Json(Health { status: "ok" })
}
