use actix_web::web::Json;
use serde::Serialize;

use crate::auth::Caller;

#[derive(Serialize)]
pub(crate) struct Me {
    id: i32,
    name: String,
    status: String,
}

/// Whose token this is.
pub(crate) async fn me(Caller(client): Caller) -> Json<Me> {
    Json(Me {
        id: client.id,
        name: client.name,
        status: client.status,
    })
}
