use actix_web::web::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::openapi::{answers, values};

#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    id: i32,
    name: String,
    #[schema(schema_with = values::client_status)]
    status: String,
}

/// Show whose token this is
#[utoipa::path(
    get,
    path = "/me",
    operation_id = "show_me",
    tag = "Service",
    responses(
        (status = 200, description = "You.", body = Me),
        answers::Bearer,
    )
)]
pub(crate) async fn me(Caller(client): Caller) -> Json<Me> {
    Json(Me {
        id: client.id,
        name: client.name,
        status: client.status,
    })
}
