//! Files of messages.

use actix_web::body::SizedStream;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderName};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use domain::media::File;
use futures_util::stream;
use uuid::Uuid;

use crate::auth::Caller;
use crate::disposition;
use crate::error::ApiError;
use crate::extract::Id;
use crate::media::Cut;
use crate::state::State;

const CACHE: &str = "private, no-store";
/// Whatever the file is, a browser that is led here runs none of it.
const POLICY: &str = "default-src 'none'; sandbox";

/// The file of the message of that id. Its head is what was said of it, and asks WhatsApp nothing.
pub(crate) async fn show(
    state: Data<State>,
    Caller(client): Caller,
    Id(id): Id,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let sealed = {
        let mut conn = state.connection().await?;
        File::find_sealed(&mut conn, client.id, id).await?
    };
    let sealed = sealed.ok_or_else(|| ApiError::not_found("file of a message of that id"))?;
    let file = File::open(&state.keyring, id, &sealed)?;
    let mut answer = head(&file, id);
    if request.method() == Method::HEAD {
        let nothing = SizedStream::new(file.size, stream::empty::<Result<_, Cut>>());
        return Ok(answer.body(nothing));
    }
    let body = state.media.open(&file).await?;
    Ok(answer.body(SizedStream::new(file.size, body)))
}

fn head(file: &File, id: Uuid) -> HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    let name = match &file.file_name {
        Some(name) => name.clone(),
        None => format!("{}-{id}", file.kind.as_str()),
    };
    let mimetype = file.mimetype.as_deref();
    answer
        .content_type(disposition::content_type(mimetype))
        .insert_header((header::CONTENT_DISPOSITION, disposition::attachment(&name)))
        .insert_header((header::CACHE_CONTROL, CACHE))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((HeaderName::from_static("content-security-policy"), POLICY));
    answer
}
