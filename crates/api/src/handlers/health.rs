//! Whether the API answers at all. Whether it can work is asked on the ops port.

use actix_web::web::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::openapi::answers;

#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Show that the API answers
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "show_health",
    tag = "Service",
    security(()),
    responses(
        (status = 200, description = "It does.", body = Health),
        answers::Anybody,
    )
)]
pub(crate) async fn show() -> Json<Health> {
    Json(Health { status: "ok" })
}
